//! What was deployed in the fleet: the histories of all hosts on one line of time.

use std::collections::BTreeSet;

use jiff::Timestamp;
use spec::id::{AppName, HostName};

use super::Reading;
use crate::git::{GitError, Mirror};
use crate::history::{self, Event, RECORDS};

/// An application writes about so many records for each thing that is told of it, the others on its host included.
const RECORDS_PER_ENTRY: usize = 8;

/// Reads what happened last, the latest first: on some hosts or on all, to one application or to all; at most `limit` things.
///
/// Hosts are looked at in the order in which they last said something, until the others cannot add anything: of a fleet of
/// thousands only a few.
///
/// How many records were found that are not their hosts' is said beside it.
///
/// # Errors
/// The clone cannot be read.
pub fn read(
    mirror: &Mirror,
    reading: &Reading,
    only: Option<&HostName>,
    app: Option<&AppName>,
    limit: usize,
) -> Result<(Vec<Event>, usize), GitError> {
    let mut left_out = 0;
    let mut hosts: Vec<(Timestamp, HostName)> =
        mirror.last_written()?.into_iter().map(|(host, at)| (at, host)).collect();
    hosts.retain(|(_, host)| reading.hosts.contains_key(host) && only.is_none_or(|only| only == host));
    hosts.sort_by(|left, right| right.cmp(left));
    let deep = limit.saturating_mul(RECORDS_PER_ENTRY).clamp(1, RECORDS);
    let mut found: BTreeSet<(Timestamp, usize, usize)> = BTreeSet::new();
    let mut events: Vec<Vec<Event>> = Vec::new();
    for (written, host) in hosts {
        let oldest = found.first().map(|(at, ..)| *at);
        if found.len() >= limit && oldest.is_some_and(|oldest| written < oldest) {
            break;
        }
        let key = reading.fleet.hosts.get(&host).and_then(|host| host.key.as_deref());
        let (entries, not_own) = history::read_last(mirror, &host, key, app, limit, deep)?;
        left_out += not_own;
        let number = events.len();
        found.extend(entries.iter().enumerate().map(|(at, entry)| (entry.at, number, at)));
        while found.len() > limit {
            found.pop_first();
        }
        events.push(entries.into_iter().map(|entry| Event { host: host.clone(), entry }).collect());
    }
    Ok((found.into_iter().rev().map(|(_, host, at)| events[host][at].clone()).collect(), left_out))
}
