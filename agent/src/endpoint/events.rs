//! The picture of the moment, and each that follows, as server-sent events. Who reads slowly misses pictures, never holds any.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use hyper::body::{Bytes, Frame};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::connection::Slot;
use crate::snapshot::{Detail, Snapshot};

/// How often something is sent when there is nothing to say: whoever is gone is noticed by it.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a reader should wait before it comes back.
const COME_BACK: Duration = Duration::from_secs(2);

/// What a reader gets, for as long as it listens.
struct Reader {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    detail: Detail,
    slot: Arc<Slot>,
    begun: bool,
    _room: OwnedSemaphorePermit,
}

/// Returns what is sent to a reader. It ends when the agent does.
pub(super) fn stream(
    snapshots: watch::Receiver<Arc<Snapshot>>,
    detail: Detail,
    slot: Arc<Slot>,
    room: OwnedSemaphorePermit,
) -> BoxStream<'static, Result<Frame<Bytes>, Infallible>> {
    let reader = Reader { snapshots, detail, slot, begun: false, _room: room };
    unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok(Frame::data(Bytes::from(text))), reader))
    })
    .boxed()
}

impl Reader {
    async fn next(&mut self) -> Option<String> {
        // Asked for more means that what was sent before could be written.
        self.slot.extend(3 * HEARTBEAT);
        if !std::mem::replace(&mut self.begun, true) {
            let event = self.event();
            return Some(format!("retry: {}\n{event}", COME_BACK.as_millis()));
        }
        match tokio::time::timeout(HEARTBEAT, self.snapshots.changed()).await {
            Ok(Ok(())) => Some(self.event()),
            Ok(Err(_)) => None,
            Err(_) => Some(": still here\n\n".to_owned()),
        }
    }

    fn event(&mut self) -> String {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        format!("id: {}\nevent: status\ndata: {}\n\n", snapshot.serial, snapshot.text(self.detail))
    }
}
