//! What containers say, as it is said.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use spec::id::ContainerName;

use super::{ASK, Engine, Error};

/// The most that is kept of a line that does not end.
const LINE_LIMIT: usize = 64 * 1024;

impl Engine {
    /// Tells the lines of a container with their times, of what was said already the last `tail` ones, until there are no more or
    /// nobody wants to hear them. Returns when the last one was said.
    ///
    /// # Errors
    /// There is no such container, or no answer; where nobody waits for what is to come, none within the usual time.
    pub async fn listen<F: Future<Output = bool>>(
        &self,
        name: &ContainerName,
        tail: Option<usize>,
        since: Option<Timestamp>,
        follow: bool,
        mut tell: impl FnMut(Timestamp, String) -> F,
    ) -> Result<Option<Timestamp>, Error> {
        let doing = format!("read the log of container {name}");
        let client = self.client(&doing)?;
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            follow,
            since: since.map_or(0, |since| i32::try_from(since.as_second()).unwrap_or(0)),
            tail: tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..LogsOptions::default()
        };
        let mut log = std::pin::pin!(client.docker.logs(name.as_str(), Some(options)));
        let (mut open, mut last) = (Vec::new(), None);
        loop {
            let piece = match follow {
                true => log.next().await.transpose().map_err(|error| client.classify(&doing, error))?,
                false => client.within(&doing, ASK, async { log.next().await.transpose() }).await?,
            };
            let Some(piece) = piece else { return Ok(last) };
            for line in lines(&mut open, piece) {
                let Some((at, text)) = timed(&line) else { continue };
                if since.is_some_and(|since| at < since) {
                    continue;
                }
                last = Some(at);
                if !tell(at, text.to_owned()).await {
                    return Ok(last);
                }
            }
        }
    }
}

/// Splits what came into lines. A terminal's comes in pieces of any size; otherwise each piece is a line, or a part of a long one.
fn lines(open: &mut Vec<u8>, piece: LogOutput) -> Vec<String> {
    let is_of_a_terminal = matches!(piece, LogOutput::Console { .. });
    open.extend_from_slice(&piece.into_bytes());
    let end = match open.iter().rposition(|byte| *byte == b'\n') {
        Some(end) if is_of_a_terminal && open.len() < LINE_LIMIT => end + 1,
        None if is_of_a_terminal && open.len() < LINE_LIMIT => 0,
        _ => open.len(),
    };
    let rest = open.split_off(end);
    let text = String::from_utf8_lossy(&std::mem::replace(open, rest)).into_owned();
    text.lines().map(str::to_owned).collect()
}

/// Takes the time off that the engine puts before each line.
fn timed(line: &str) -> Option<(Timestamp, &str)> {
    let (at, text) = line.split_once(' ').unwrap_or((line, ""));
    Some((at.parse().ok()?, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let mut open = Vec::new();
        let terminal = |text: &'static str| LogOutput::Console { message: text.into() };
        assert_eq!(lines(&mut open, terminal("2026-11-22T01:00:00Z on")), Vec::<String>::new());
        let whole = lines(&mut open, terminal("e\r\n2026-11-22T01:00:01.5Z two\n2026"));
        assert_eq!(whole, ["2026-11-22T01:00:00Z one", "2026-11-22T01:00:01.5Z two"]);
        assert_eq!(open, b"2026");
        let mut open = Vec::new();
        let said = LogOutput::StdErr { message: "2026-11-22T01:00:00.000000001Z no end".into() };
        let said = lines(&mut open, said);
        let (at, text) = timed(&said[0]).expect("a line");
        assert_eq!((at.to_string().as_str(), text), ("2026-11-22T01:00:00.000000001Z", "no end"));
        assert_eq!(timed("nonsense"), None);
    }
}
