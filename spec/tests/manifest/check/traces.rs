//! What tools leave behind, what units cannot run, and what others should not read: the mistakes themselves are in `tests/messages`,
//! here is what only looks like one.

use expect_test::expect;

use crate::support::check;

#[test]
fn what_only_looks_like_a_mistake() {
    check(
        r#"-- fleet.yaml --
fleet: home
hosts: { attic: {} }
-- apps/a/README.md --
<<<<<<< ours
=======
>>>>>>> theirs
-- apps/a/app.yaml --
vars: { level: 1 }
files:
  /etc/a/key.pem: { mode: "0600" }
  /etc/a/secret.env: { mode: "0640" }
-- apps/a/files/etc/a/heading --
Heading
=======
<<<<<<< no conflict without its other marks
-- apps/a/files/etc/a/dashboard.json --
{ "title": "{{ instance }} {{ .Labels.vars }} {{varsity.x}}" }
-- apps/a/files/etc/a/rendered.conf.j2 --
level = {{ vars.level }} {{ "{{ vars.level }}" }}
-- apps/a/files/etc/a/key.pem --
-----BEGIN PRIVATE KEY-----
-- apps/a/files/etc/a/cert.pem --
-----BEGIN CERTIFICATE-----
-- apps/a/files/etc/a/locked.pem --
-----BEGIN ENCRYPTED PRIVATE KEY-----
-- apps/a/files/etc/a/secret.env --
TOKEN=x
-- apps/a/files/etc/a/open.env --
# TOKEN=x
TOKEN_FILE=/run/token
PASSWORD=${OTHER}
TOKEN=
SECRETARY=ada
 LEVEL = 1
LONG=one \
  two words
TEXT="first
second line"
-- apps/a/files/usr/local/bin/a (x) --
#!/bin/sh
-- apps/a/files/usr/local/bin/data --
not run by anybody
-- apps/a/a.service --
[Service]
Environment="A=1 2" B=3 'C=x y'
EnvironmentFile=-/etc/a/open.env
ExecStartPre=/bin/sh -c "true && echo > /dev/null"
ExecStart=/usr/local/bin/a /usr/local/bin/data ; /bin/true
Type=oneshot
RestartSec=1min 30s
TimeoutStartSec=%i
CPUQuota=50%
-- apps/a/a.timer --
[Timer]
OnCalendar=Mon..Fri *-*-* 03:00:00
OnCalendar=*:0/15
OnCalendar=Sat,Sun 12:00 Europe/Berlin
OnCalendar=quarterly
OnCalendar=*-*-1 00:00
OnCalendar=
OnCalendar=monday
"#,
        expect![[""]],
    );
}
