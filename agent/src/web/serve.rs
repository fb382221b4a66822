//! The fetcher's side: fulfils one wish of the agent on each connection.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::{Head, MAX_PIECE, MAX_TEXT, Manner, PATIENCE, WebError, Wish, bind, client, hear, knock, pass, say, send};

/// The fetcher's side.
#[derive(Default)]
pub struct Server {
    /// Built once, as long as the proxies stay the same.
    clients: Mutex<Vec<Built>>,
}

struct Built {
    manner: Manner,
    proxies: Vec<(String, String)>,
    client: reqwest::Client,
}

impl Server {
    /// Fulfils the wish of the agent at the other end, which has said its opening.
    ///
    /// # Errors
    /// The agent is gone, or makes no sense.
    pub async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let wish = tokio::time::timeout(PATIENCE, hear(&mut stream, MAX_TEXT)).await;
        match wish.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            Wish::Knock(address) => {
                let known = tokio::select! {
                    known = knock(&address) => known,
                    () = gone(&stream) => return Ok(()),
                };
                say(&mut stream, &known).await
            }
            Wish::Listen(address) => {
                let listener = bind(address);
                say(&mut stream, &listener.as_ref().map(drop).map_err(io::Error::raw_os_error)).await?;
                let Ok(listener) = listener else { return Ok(()) };
                pass(&stream, &listener).await
            }
            Wish::Send(manner, proxies, asked) => {
                let answer = async {
                    let client = self.client(manner, &proxies).map_err(WebError::ours)?;
                    send(&client, asked).await
                };
                let answer = tokio::select! {
                    answer = answer => answer,
                    () = gone(&stream) => return Ok(()),
                };
                let mut answer = match answer {
                    Ok(answer) => answer,
                    Err(error) => return say(&mut stream, &Err::<Head, _>(error)).await,
                };
                say(&mut stream, &Ok::<_, WebError>(answer.head.clone())).await?;
                loop {
                    let piece = tokio::select! {
                        piece = answer.chunk() => piece,
                        () = gone(&stream) => return Ok(()),
                    };
                    match piece {
                        Ok(Some(piece)) => {
                            for piece in piece.chunks(MAX_PIECE as usize) {
                                stream.write_all(&u32::try_from(piece.len()).unwrap_or(0).to_be_bytes()).await?;
                                stream.write_all(piece).await?;
                            }
                        }
                        Ok(None) => return stream.write_all(&0_u32.to_be_bytes()).await,
                        Err(error) => {
                            stream.write_all(&u32::MAX.to_be_bytes()).await?;
                            return say(&mut stream, &error).await;
                        }
                    }
                }
            }
        }
    }

    fn client(&self, manner: Manner, proxies: &[(String, String)]) -> Result<reqwest::Client, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|built| built.manner != manner || built.proxies == proxies);
        if let Some(built) = clients.iter().find(|built| built.manner == manner) {
            return Ok(built.client.clone());
        }
        let client = client(manner, Some(proxies))?;
        clients.push(Built { manner, proxies: proxies.to_vec(), client: client.clone() });
        Ok(client)
    }
}

/// Ends when the agent hangs up: it has nothing more to say.
async fn gone(stream: &UnixStream) {
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut [0; 16]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
