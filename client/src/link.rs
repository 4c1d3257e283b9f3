//! A transport that is up, and what is known of its readiness.

use crate::packets::Packets;
use crate::transport::Transport;
use hikyaku_proto::client::Client;
use mio::event::Event;
use std::io::{self, ErrorKind, IoSlice};

#[derive(Debug)]
pub(crate) struct Link {
    pub transport: Transport,
    /// What the poll said and a call has not yet denied.
    pub readable: bool,
    pub writable: bool,
    /// The poll said that the server sends no more than what is there: it does not say so again.
    pub ended: bool,
    /// The layers of the transport keep bytes.
    pub unflushed: bool,
    pub packets: Option<Packets>,
}

impl Link {
    /// Of a transport that may be ready for anything.
    pub fn new(transport: Transport, packets: Option<Packets>) -> Link {
        Link { transport, readable: true, writable: true, ended: false, unflushed: false, packets }
    }

    /// Takes what the poll says.
    pub fn note(&mut self, event: &Event) {
        self.ended |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || self.ended;
        self.writable |= event.is_writable() || event.is_write_closed();
    }

    /// Writes what the client has to say, as far as the transport takes it.
    pub fn write(&mut self, client: &mut Client) -> io::Result<()> {
        while self.writable && !client.outbox().is_empty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(client.outbox().chunks()) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            match self.transport.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    if let Some(packets) = &mut self.packets {
                        packets.sent(n, &slices[..count]);
                    }
                    client.written(n);
                    self.unflushed = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }

    /// Writes what the layers keep.
    fn flush(&mut self) -> io::Result<()> {
        // Even with nothing of ours: the layers may have answered the server's.
        match self.transport.flush() {
            Ok(()) => self.unflushed = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                (self.writable, self.unflushed) = (false, true);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.unflushed = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
