//! A TCP connection that changes its runtime: hands are shaken on the runtime that accepts and connects, where waiting for a key in a
//! token holds up nobody, and then it goes to the [worker](super::workers) that carries its exchanges.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Such a connection. Between [`leave`](Self::leave) and [`arrive`](Self::arrive) nothing can be read or written.
#[derive(Debug)]
pub(super) struct Socket(Place);

#[derive(Debug)]
enum Place {
    On(TcpStream),
    Between(std::net::TcpStream),
    Lost,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Place::On(stream))
    }

    /// Leaves the runtime that it is on.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, Place::Lost) {
            Place::On(stream) => Place::Between(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Goes on on the runtime that this is called on.
    pub(super) fn arrive(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, Place::Lost) {
            Place::Between(stream) => Place::On(TcpStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.get_mut().0 {
            Place::On(stream) => Ok(Pin::new(stream)),
            Place::Between(_) | Place::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_said_on_one_runtime_is_answered_on_another() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (first, second) = (runtime(), runtime());
        let mut socket = first.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut said = [0; 5];
                far.read_exact(&mut said).await.unwrap();
                far.write_all(&said).await.unwrap();
            });
            let mut socket = Socket::new(near);
            socket.write_all(b"hello").await.unwrap();
            tokio::task::yield_now().await;
            socket.leave().unwrap();
            assert_eq!(socket.write(b"x").await.unwrap_err().kind(), io::ErrorKind::NotConnected);
            socket
        });
        let answering = std::thread::spawn(move || first.block_on(std::future::pending::<()>()));
        let answer = second.block_on(async {
            socket.arrive().unwrap();
            let mut answer = [0; 5];
            socket.read_exact(&mut answer).await.unwrap();
            answer
        });
        assert_eq!(&answer, b"hello");
        drop(answering);
    }
}
