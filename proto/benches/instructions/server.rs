//! The real broker, reached through sockets.

use crate::clients::{Broker, Reading};
use hikyaku_proto::codec::{Connect, Version};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that is counted from its start to its end.
pub struct Server {
    process: Child,
    port: u16,
    clients: Vec<Client>,
    packets: usize,
}

struct Client {
    socket: TcpStream,
    version: Version,
    reading: Reading,
}

impl Server {
    /// Starts `binary` by `command`, which counts it, and waits until it accepts. Its configuration goes to a file
    /// with this beginning of a name.
    pub fn start(mut command: Command, binary: &Path, files: &Path) -> Server {
        let free =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).unwrap();
        let port = free.port();
        let conf = files.with_extension("conf");
        // Nothing that depends on time.
        let lines = format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 0\n");
        std::fs::write(&conf, lines).unwrap();
        command.arg(binary).args(["--workers", "1", "-q", "-c"]).arg(&conf);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Server { process, port, clients: Vec::new(), packets: 0 };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            assert!(server.process.try_wait().unwrap().is_none(), "the broker does not start");
            assert!(Instant::now() < deadline, "nobody accepts: {error}");
            sleep(Duration::from_millis(20));
        }
        std::fs::remove_file(&conf).unwrap();
        server
    }

    /// Ends the broker, and with it what counts.
    pub fn stop(mut self) {
        self.clients.clear();
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success(), "the broker ended badly");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is left of one that was stopped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Broker for Server {
    fn shards(&self) -> usize {
        1
    }

    fn name(&self, prefix: &str, _shard: usize) -> String {
        prefix.into()
    }

    fn connect(&mut self, connect: &Connect<'_>) -> usize {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        self.clients.push(Client { socket, version: connect.version, reading: Reading::default() });
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).unwrap();
        let at = self.clients.len() - 1;
        self.send(at, &bytes);
        self.settle(1);
        at
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        // In one piece: it is small enough for the socket's buffer.
        let written = self.clients[client].socket.write(bytes).unwrap();
        assert_eq!(written, bytes.len());
    }

    fn settle(&mut self, packets: usize) {
        let mut buffer = [0; 65_536];
        let deadline = Instant::now() + PATIENCE;
        while self.packets < packets {
            for client in &mut self.clients {
                let read = match client.socket.read(&mut buffer) {
                    Ok(0) => panic!("the broker hung up"),
                    Ok(read) => read,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    Err(e) => panic!("{e}"),
                };
                let (before, mut answers) = (client.reading.packets, Vec::new());
                client.reading.take(client.version, &buffer[..read], &mut answers);
                self.packets += client.reading.packets - before;
                assert!(answers.is_empty(), "when these arrive is not the same in each run");
            }
            assert!(Instant::now() < deadline, "clients read {} packets of {packets}", self.packets);
        }
        self.packets -= packets;
    }

    fn hang_up(&mut self, client: usize) {
        self.clients.remove(client);
    }
}
