//! Who is believed in histories of a few commits, and what a walk over any history never lets pass.

use expect_test::expect;
use proptest::prelude::*;

use super::*;

fn id(number: usize) -> CommitId {
    CommitId::parse(&format!("{number:040x}")).expect("a commit")
}

fn key(name: &str) -> Fingerprint {
    Fingerprint::of_ssh(name.as_bytes())
}

fn moment(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + 3600 * hours).expect("a time")
}

fn signer(name: &str) -> Signer {
    Signer { principals: name.to_owned(), key: key(name), namespaces: Vec::new(), valid: (None, None), openpgp: None }
}

fn trust(names: &[&str]) -> Arc<Trust> {
    let signers = names.iter().map(|name| signer(name)).collect();
    Arc::new(Trust { require: Require::EveryCommit, signers, approvals: 1, ..Trust::default() })
}

/// A commit on others, by somebody; nobody signs as "".
fn commit(number: usize, parents: &[usize], by: &str, trust: &Arc<Trust>) -> Commit {
    let signature = if by.is_empty() { Signature::Missing } else { Signature::By(key(by)) };
    Commit {
        id: id(number),
        parents: parents.iter().map(|parent| id(*parent)).collect(),
        at: moment(i64::try_from(number).expect("it is small")),
        signature,
        approves: Vec::new(),
        trust: Some(Arc::clone(trust)),
    }
}

/// Walks from commit 0, which trusts `before`.
fn walk(before: &Arc<Trust>, commits: &[Commit]) -> String {
    walk_beside(before, commits, |_| None)
}

fn walk_beside(before: &Arc<Trust>, commits: &[Commit], old: impl Fn(usize) -> Option<Arc<Trust>>) -> String {
    let outside = |wanted: &CommitId| {
        let number = (0..100).find(|number| id(*number) == *wanted)?;
        if number == 0 { Some(Arc::clone(before)) } else { old(number) }
    };
    let first = Before { id: Some(id(0)), trust: Arc::clone(before), at: moment(0) };
    match believe(&first, commits, outside, moment(10_000)) {
        Ok(()) => "believed".to_owned(),
        Err(it) => {
            let number = (0..100).find(|number| id(*number) == it.commit).expect("one of these");
            let short = |text: String, name: &str| text.replace(&key(name).to_string(), name);
            format!("{number} {}: {}", it.reason.as_str(), ["ann", "bob", "eve"].into_iter().fold(it.text, short))
        }
    }
}

#[test]
fn a_signature_of_who_is_trusted_counts_and_no_other() {
    let ann = trust(&["ann"]);
    let broken =
        Commit { signature: Signature::Broken("it is of another text".to_owned()), ..commit(1, &[0], "", &ann) };
    let told = [
        walk(&ann, &[commit(1, &[0], "ann", &ann)]),
        walk(&ann, &[commit(1, &[0], "", &ann)]),
        walk(&ann, &[commit(1, &[0], "eve", &ann)]),
        walk(&ann, &[broken]),
        walk(&trust(&[]), &[commit(1, &[0], "ann", &ann)]),
        // In the middle, below a tip that is signed; and on a branch that the tip brings in.
        walk(&ann, &[commit(1, &[0], "eve", &ann), commit(2, &[1], "ann", &ann)]),
        walk(&ann, &[commit(1, &[0], "", &ann), commit(2, &[0], "ann", &ann), commit(3, &[2, 1], "ann", &ann)]),
    ];
    expect![[r#"
        believed
        1 unsigned: it is not signed
        1 unknown-signer: it is signed with eve, which is not among those who may sign
        1 bad-signature: its signature does not hold: it is of another text
        1 no-signers: nobody may sign here: the file of the signers names no usable key
        1 unknown-signer: it is signed with eve, which is not among those who may sign
        1 unsigned: it is not signed"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn who_is_added_counts_from_the_next_commit_on_and_who_is_removed_stays_removed() {
    let (ann, both, bob) = (trust(&["ann"]), trust(&["ann", "bob"]), trust(&["bob"]));
    let told = [
        walk(&ann, &[commit(1, &[0], "ann", &both), commit(2, &[1], "bob", &both)]),
        walk(&ann, &[commit(1, &[0], "bob", &both)]),
        walk(&both, &[commit(1, &[0], "bob", &bob), commit(2, &[1], "ann", &bob)]),
        // A branch from before ann was removed (1, by commit 0), and one that merges it.
        walk_beside(&bob, &[commit(2, &[1], "ann", &both)], |_| Some(Arc::clone(&both))),
        walk_beside(&bob, &[commit(2, &[1], "bob", &both), commit(3, &[2], "ann", &both)], |_| Some(Arc::clone(&both))),
        walk_beside(&bob, &[commit(2, &[1], "bob", &both), commit(3, &[2, 0], "ann", &both)], |_| {
            Some(Arc::clone(&both))
        }),
        walk_beside(&bob, &[commit(2, &[1], "bob", &both), commit(3, &[0, 2], "bob", &bob)], |_| {
            Some(Arc::clone(&both))
        }),
        // Merged with what a branch from before says: that brings her back, by somebody who may, from the next commit on.
        walk_beside(
            &bob,
            &[commit(2, &[1], "bob", &both), commit(3, &[0, 2], "bob", &both), commit(4, &[3], "ann", &both)],
            |_| Some(Arc::clone(&both)),
        ),
        // Somebody new merges a branch that was begun before; also where nobody has seen either.
        walk(&ann, &[commit(1, &[0], "ann", &both), commit(2, &[0], "ann", &ann), commit(3, &[1, 2], "bob", &both)]),
        walk(&ann, &[commit(1, &[0], "ann", &both), commit(2, &[0], "bob", &ann), commit(3, &[1, 2], "ann", &both)]),
        // Two who may not, each on the branch that the other one names.
        walk(
            &ann,
            &[commit(1, &[0], "bob", &trust(&["eve"])), commit(2, &[0], "eve", &bob), commit(3, &[1, 2], "eve", &bob)],
        ),
        // Removed on one branch while he signs on another, which is seen together.
        walk(&both, &[commit(1, &[0], "ann", &ann), commit(2, &[0], "bob", &both), commit(3, &[1, 2], "ann", &ann)]),
        // Somebody else may bring her back, and she may not herself.
        walk(&bob, &[commit(1, &[0], "bob", &both), commit(2, &[1], "ann", &both)]),
    ];
    expect![[r#"
        believed
        1 unknown-signer: it is signed with bob, which is not trusted before this commit: bob counts from the next one on, and somebody who is trusted already has to sign this one
        2 unknown-signer: it is signed with ann, which is not among those who may sign
        2 unknown-signer: it is signed with ann, which was removed from those who may sign; its branch is older than that: somebody who is trusted now has to sign these changes again
        3 unknown-signer: it is signed with ann, which was removed from those who may sign; its branch is older than that: somebody who is trusted now has to sign these changes again
        3 unknown-signer: it is signed with ann, which was removed from those who may sign; its branch is older than that: somebody who is trusted now has to sign these changes again
        believed
        believed
        believed
        2 unknown-signer: it is signed with bob, which is not among those who may sign
        1 unknown-signer: it is signed with bob, which is not among those who may sign
        2 unknown-signer: it is signed with bob, which was removed from those who may sign; its branch is older than that: somebody who is trusted now has to sign these changes again
        believed"#]].assert_eq(&told.join("\n"));
}

#[test]
fn a_branch_from_before_there_was_trust_is_held_to_what_holds_now() {
    let (none, ann) = (Arc::new(Trust::nobody()), trust(&["ann"]));
    let old = |_| Some(Arc::clone(&none));
    let told = [
        walk(&none, &[commit(1, &[0], "", &ann), commit(2, &[1], "", &ann)]),
        walk_beside(&ann, &[commit(2, &[1], "", &none)], old),
        walk_beside(&ann, &[commit(2, &[1], "ann", &none), commit(3, &[2], "", &none)], old),
        walk_beside(&ann, &[commit(2, &[1], "ann", &none), commit(3, &[0, 2], "ann", &ann)], old),
        walk(&none, &[commit(1, &[0], "", &ann), commit(2, &[0], "ann", &none), commit(3, &[1, 2], "ann", &ann)]),
        walk(&none, &[commit(1, &[0], "", &ann), commit(2, &[0], "", &none), commit(3, &[1, 2], "ann", &ann)]),
        // Whoever may sign may also say that nobody has to.
        walk(&ann, &[commit(1, &[0], "ann", &none), commit(2, &[1], "", &none)]),
    ];
    expect![[r#"
        2 unsigned: it is not signed
        2 unsigned: it is not signed
        3 unsigned: it is not signed
        believed
        believed
        2 unsigned: it is not signed
        believed"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn a_clock_that_is_turned_back_gains_nothing() {
    let until = |hours| Signer { valid: (None, Some(moment(hours))), ..signer("ann") };
    let with = |signer| {
        Arc::new(Trust { require: Require::EveryCommit, signers: vec![signer], approvals: 1, ..Trust::default() })
    };
    let five = with(until(5));
    let at = |hours, number: usize| Commit { at: moment(hours), ..commit(number, &[number - 1], "ann", &five) };
    let told = [
        walk(&five, &[at(4, 1)]),
        walk(&five, &[at(5, 1)]),
        walk(&five, &[at(-9, 1)]),
        walk(&five, &[Commit { signature: Signature::By(key("ann")), ..at(4, 1) }, at(6, 2)]),
        // A line that is cut short counts for branches that have the old one.
        {
            let cut = with(until(0));
            walk(
                &five,
                &[
                    commit(1, &[0], "ann", &five),
                    Commit { at: moment(1), ..commit(2, &[0], "ann", &cut) },
                    commit(3, &[2, 1], "ann", &cut),
                ],
            )
        },
        // Commit 1 is of hour 6 and was believed before: whatever its child says, it is later.
        match believe(
            &Before { id: Some(id(0)), trust: Arc::clone(&five), at: moment(6) },
            &[at(3, 1)],
            |_| None,
            moment(100),
        ) {
            Ok(()) => "believed".to_owned(),
            Err(it) => it.text.replace(&key("ann").to_string(), "ann"),
        },
    ];
    expect![[r#"
        believed
        1 not-valid: it is signed by ann with ann, who may not sign since 2027-01-15T13:00:00Z
        believed
        2 not-valid: it is signed by ann with ann, who may not sign since 2027-01-15T13:00:00Z
        1 not-valid: it is signed by ann with ann, who may not sign since 2027-01-15T08:00:00Z
        it is signed by ann with ann, who may not sign since 2027-01-15T13:00:00Z"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn a_clock_that_is_behind_is_told_from_a_signature_that_came_too_early() {
    let after = |hour| {
        let mut trust = (*trust(&["ann"])).clone();
        trust.signers.iter_mut().for_each(|signer| signer.valid = (Some(moment(hour)), None));
        Arc::new(trust)
    };
    let reason = |hour, now| {
        let trust = after(hour);
        let before = Before { id: Some(id(0)), trust: Arc::clone(&trust), at: moment(0) };
        let commit = Commit { at: moment(5), ..commit(1, &[0], "ann", &trust) };
        believe(&before, &[commit], |_| None, moment(now)).map_err(|it| it.reason)
    };
    assert_eq!(reason(4, 9), Ok(()));
    assert_eq!(reason(4, 2), Err(Reason::NotYetValid), "the host's clock has not come to its hour yet");
    assert_eq!(reason(6, 9), Err(Reason::NotValid), "no later hour makes it good");
    assert_eq!(reason(6, 2), Err(Reason::NotValid));
}

#[test]
fn a_change_of_trust_needs_as_many_people_as_it_says() {
    let of = |names: &[&str], approvals| Arc::new(Trust { approvals, ..(*trust(names)).clone() });
    let (two, three, alone) = (of(&["ann", "bob"], 2), of(&["ann", "bob", "eve"], 2), of(&["ann", "bob"], 1));
    let agrees = |number, by: &str, to: usize, trust| Commit {
        approves: vec![id(to)],
        ..commit(number, &[number - 1], by, trust)
    };
    let told = [
        walk(&two, &[commit(1, &[0], "ann", &two)]),
        walk(&two, &[commit(1, &[0], "ann", &three)]),
        walk(&two, &[commit(1, &[0], "ann", &three), agrees(2, "bob", 1, &three)]),
        walk(&two, &[commit(1, &[0], "ann", &three), agrees(2, "ann", 1, &three)]),
        walk(&two, &[commit(1, &[0], "ann", &three), agrees(2, "eve", 1, &three)]),
        // What was so once is no less of a change.
        walk_beside(&two, &[commit(2, &[0, 1], "ann", &alone)], |_| Some(Arc::clone(&alone))),
        // That one is enough from now on takes two as well.
        walk(&two, &[commit(1, &[0], "ann", &alone), commit(2, &[1], "ann", &three)]),
    ];
    expect![[r#"
        believed
        1 not-approved: it changes who is trusted, and 1 of the 2 who have to agree do: somebody else who is trusted already has to sign a commit on top of it that says `Approves: 0000000000000000000000000000000000000001`, on a line of its own at the end of its message
        believed
        1 not-approved: it changes who is trusted, and 1 of the 2 who have to agree do: somebody else who is trusted already has to sign a commit on top of it that says `Approves: 0000000000000000000000000000000000000001`, on a line of its own at the end of its message
        1 not-approved: it changes who is trusted, and 1 of the 2 who have to agree do: somebody else who is trusted already has to sign a commit on top of it that says `Approves: 0000000000000000000000000000000000000001`, on a line of its own at the end of its message
        2 not-approved: it changes who is trusted, and 1 of the 2 who have to agree do: somebody else who is trusted already has to sign a commit on top of it that says `Approves: 0000000000000000000000000000000000000002`, on a line of its own at the end of its message
        1 not-approved: it changes who is trusted, and 1 of the 2 who have to agree do: somebody else who is trusted already has to sign a commit on top of it that says `Approves: 0000000000000000000000000000000000000001`, on a line of its own at the end of its message"#]].assert_eq(&told.join("\n"));
}

#[test]
fn where_only_the_tip_has_to_be_signed_nothing_below_it_changes_who_may() {
    let tip = |names: &[&str]| Arc::new(Trust { require: Require::Tip, ..(*trust(names)).clone() });
    let (ann, eve, none) = (tip(&["ann"]), tip(&["eve"]), Arc::new(Trust::nobody()));
    let told = [
        walk(&ann, &[commit(1, &[0], "", &ann), commit(2, &[1], "ann", &ann)]),
        walk(&ann, &[commit(1, &[0], "", &eve), commit(2, &[1], "eve", &eve)]),
        walk(&ann, &[commit(1, &[0], "", &none), commit(2, &[1], "", &none)]),
    ];
    expect![[r#"
        believed
        2 unknown-signer: it is signed with eve, which was removed from those who may sign; its branch is older than that: somebody who is trusted now has to sign these changes again
        2 unsigned: it is not signed"#]].assert_eq(&told.join("\n"));
}

/// A drawn commit: the numbers of its parents, who signs it, and whom it has sign from then on.
type Drawn = (Vec<usize>, usize, Option<Vec<usize>>);

/// Histories with branches and merges in which anybody signs and who may sign changes; the first person is trusted at first.
fn histories() -> impl Strategy<Value = Vec<Drawn>> {
    let commit = (
        prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        0..4_usize,
        prop::option::weighted(0.4, prop::collection::vec(0..3_usize, 1..3)),
    );
    prop::collection::vec(commit, 1..12).prop_map(|commits| {
        let on = |(number, (parents, by, trust)): (usize, (Vec<prop::sample::Index>, usize, _))| {
            (parents.into_iter().map(|parent| parent.index(number + 1)).collect(), by, trust)
        };
        commits.into_iter().enumerate().map(on).collect()
    })
}

const PEOPLE: [&str; 4] = ["ann", "bob", "eve", ""];

/// Plays a history, and says which commits were believed before the first that was not.
fn play(history: &[Drawn]) -> (Vec<Arc<Trust>>, usize) {
    let first = trust(&["ann"]);
    let mut says = vec![Arc::clone(&first)];
    let mut commits = Vec::new();
    for (number, (parents, by, changed)) in history.iter().enumerate() {
        let names = |people: &Vec<usize>| trust(&people.iter().map(|it| PEOPLE[*it]).collect::<Vec<_>>());
        let said = changed.as_ref().map_or_else(|| Arc::clone(&says[parents[0]]), names);
        says.push(Arc::clone(&said));
        commits.push(commit(number + 1, parents, PEOPLE[*by], &said));
    }
    let before = Before { id: Some(id(0)), trust: first, at: moment(0) };
    let refused = believe(&before, &commits, |_| None, moment(10_000)).err();
    let number = |it: Disbelief| commits.iter().position(|commit| commit.id == it.commit).expect("one of these");
    let good = refused.map_or(commits.len(), number);
    (says, good)
}

proptest! {
    /// Whoever signs was trusted by the first person, or by somebody who was.
    #[test]
    fn nobody_signs_whom_nobody_trusted(history in histories()) {
        let (says, good) = play(&history);
        let mut trusted = BTreeSet::from(["ann".to_owned()]);
        for _ in 0..history.len() {
            for (number, (_, by, _)) in history.iter().enumerate() {
                if trusted.contains(PEOPLE[*by]) {
                    trusted.extend(says[number + 1].signers.iter().map(|signer| signer.principals.clone()));
                }
            }
        }
        for (number, (_, by, _)) in history.iter().enumerate().take(good) {
            prop_assert!(trusted.contains(PEOPLE[*by]), "{} is signed by `{}`", number + 1, PEOPLE[*by]);
        }
    }

    /// On a straight line, whoever signs a commit is named by the one before it: no more and no less.
    #[test]
    fn on_a_line_the_commit_before_decides(history in histories()) {
        let line = |(number, (_, by, changed))| (vec![number], by, changed);
        let line: Vec<_> = history.into_iter().enumerate().map(line).collect();
        let (says, good) = play(&line);
        let may = |number: usize| says[number].signers.iter().any(|signer| signer.principals == PEOPLE[line[number].1]);
        prop_assert_eq!(good, (0..line.len()).take_while(|number| may(*number)).count());
    }
}
