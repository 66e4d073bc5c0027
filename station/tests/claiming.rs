//! A broker that claims any version: a simulator for what no packaged server will say.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
};

/// Speaks just enough of the NATS client protocol to be connected to, and claims `version`.
pub(crate) fn broker_claiming(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream, version));
        }
    });
    format!("nats://{address}")
}

fn serve(mut stream: TcpStream, version: &str) {
    let info = format!(
        "INFO {{\"server_id\":\"TEST\",\"server_name\":\"test\",\"version\":\"{version}\",\"go\":\"go1\",\"host\":\"127.0.0.1\",\"port\":4222,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1}}\r\n"
    );
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    if stream.write_all(info.as_bytes()).is_err() {
        return;
    }
    for line in BufReader::new(reading).lines().map_while(Result::ok) {
        if line.starts_with("PING") && stream.write_all(b"PONG\r\n").is_err() {
            return;
        }
    }
}
