//! What can be wrong in `adopt` and `drift`.

use expect_test::expect;

use crate::support::check_app;

#[test]
fn adoption_and_drift_are_said_of_the_application_and_of_entries() {
    check_app(
        r"adopt: true
drift: report
units:
  web.service: { adopt: false, drift: repair }
files:
  /etc/web/web.conf: { adopt: true, drift: repair }
",
        expect![[""]],
    );
}

#[test]
fn adoption_and_drift_by_habit() {
    check_app(
        r"adopt: yes
units:
  web.service: { adopt: 1, drift: ignore }
  ssh.service: { state: running, adopt: true }
files:
  /etc/web/web.conf: { adopted: true, drift: reprot }
containers:
  box: { image: i/b:1, adopt: 1 }
",
        expect![[r#"
            error[wrong-type] apps/a/app.yaml:1:8: `adopt` is `true` or `false`, not `yes`
              = write true, without quotes
            error[wrong-type] apps/a/app.yaml:3:25: `adopt` is `true` or `false`, not `1`
              = write true or false, without quotes
            error[unknown-value] apps/a/app.yaml:3:35: `drift` is `repair` or `report`, not `ignore`
              = did you mean `report`?
            error[adopt] apps/a/app.yaml:4:3: no text of `ssh.service` is in this folder, so there is nothing to take over
              = remove `adopt`: it is for a file that is in the way of ours
            error[critical-unit] apps/a/app.yaml:4:3: unit `ssh.service` is guarded: the host, or the way into it, depends on it
              = if you mean it, write units: { ssh.service: { allow-critical: true } } in app.yaml
            error[unknown-key] apps/a/app.yaml:6:24: an entry of `files` has no key `adopted`
              = did you mean `adopt`?
            error[unknown-value] apps/a/app.yaml:6:46: `drift` is `repair` or `report`, not `reprot`
              = did you mean `report`?
            error[wrong-type] apps/a/app.yaml:8:31: `adopt` is `true` or `false`, not `1`
              = write true or false, without quotes
        "#]],
    );
}
