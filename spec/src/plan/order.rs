//! The order in which containers that depend on each other are started, and the reverse, in which they are stopped.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ContainerName;

/// Sorts names so that each comes behind those it is started after. Names that are not among the keys do not matter, and a
/// circle, which the manifest refuses, is cut somewhere.
pub(super) fn sorted<'n>(after: &BTreeMap<&'n ContainerName, BTreeSet<&'n ContainerName>>) -> Vec<&'n ContainerName> {
    let (mut done, mut sorted) = (BTreeSet::new(), Vec::new());
    for name in after.keys() {
        visit(name, after, &mut done, &mut sorted);
    }
    sorted
}

fn visit<'n>(
    name: &'n ContainerName,
    after: &BTreeMap<&'n ContainerName, BTreeSet<&'n ContainerName>>,
    done: &mut BTreeSet<&'n ContainerName>,
    sorted: &mut Vec<&'n ContainerName>,
) {
    let Some(before) = after.get(name) else { return };
    if done.insert(name) {
        before.iter().for_each(|earlier| visit(earlier, after, done, sorted));
        sorted.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let names: Vec<ContainerName> =
            ["a", "b", "c", "d"].iter().map(|name| ContainerName::parse(name).expect("a name")).collect();
        let [a, b, c, d] = &names[..] else { panic!("four names") };
        let after = BTreeMap::from([(a, BTreeSet::from([c])), (b, BTreeSet::from([a, d])), (c, BTreeSet::new())]);
        assert_eq!(sorted(&after), [c, a, b], "d is somebody else's");
        let circle = BTreeMap::from([(a, BTreeSet::from([b])), (b, BTreeSet::from([a]))]);
        assert_eq!(sorted(&circle).len(), 2);
    }
}
