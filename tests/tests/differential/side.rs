//! One side of the differential test: a simulated node, and a client over it that plays streams.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::json;
use vgpu_core::DeviceUuid;
use vgpu_region::DeviceLimits;
use vgpu_tests::built;
use vgpu_tests::node::Node;

use crate::intended;
use crate::limiter_world::World;

/// What the node's driver lets applications have of a card.
pub(crate) const TOTAL: u64 = 1000 << 20;
/// What a context takes there.
pub(crate) const FOOTPRINT: u64 = 64 << 20;

const UUIDS: [&str; 2] = [
    "GPU-11111111-1111-1111-1111-111111111111",
    "GPU-22222222-2222-2222-2222-222222222222",
];
const CLIENT: &str = include_str!("client.py");

/// Small cards, so that they are full now and then.
fn node() -> Node {
    Node::described(&format!(
        "context_footprint_mib = {}\n[gpu]\nvram_mib = 1024\nreserved_mib = 24\n[[gpus]]\nuuid = \"{}\"\n[[gpus]]\nuuid = \"{}\"\n",
        FOOTPRINT >> 20,
        UUIDS[0],
        UUIDS[1]
    ))
}

/// A client process and what it stands on.
#[derive(Debug)]
pub(crate) struct Side {
    client: Child,
    requests: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _ground: Ground,
}

/// What is taken down after the client.
enum Ground {
    Bare { _node: Node },
    Limited { _world: World },
}

impl std::fmt::Debug for Ground {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Bare { .. } => "Bare",
            Self::Limited { .. } => "Limited",
        })
    }
}

impl Side {
    /// Over the simulated driver alone.
    pub(crate) fn bare() -> Self {
        let node = node();
        let mut command = Command::new(built::python());
        command.env(
            "LD_LIBRARY_PATH",
            node.root().join("usr/lib/x86_64-linux-gnu"),
        );
        Self::start(command, Ground::Bare { _node: node })
    }

    /// Over the limiter over the simulated driver, with this much of each card.
    pub(crate) fn limited(vram_limit: u64, context_footprint: u64) -> Self {
        let world = World::over(node());
        world.grant(&UUIDS.map(|uuid| DeviceLimits {
            uuid: uuid.parse::<DeviceUuid>().unwrap().as_bytes(),
            capacity: TOTAL,
            vram_limit,
            context_footprint,
            ..DeviceLimits::default()
        }));
        let command = world.command(built::python());
        Self::start(command, Ground::Limited { _world: world })
    }

    fn start(mut command: Command, ground: Ground) -> Self {
        command
            .args(["-c", CLIENT])
            .env("FOOTPRINT", FOOTPRINT.to_string())
            .env("VGPU_WITHOUT", intended::without())
            .env_remove("CUDA_VISIBLE_DEVICES")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let requests = client.stdin.take().unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        Self {
            client,
            requests,
            lines,
            _ground: ground,
        }
    }

    /// Starts a stream.
    pub(crate) fn ask(&mut self, seed: u64, keep: &[usize]) {
        writeln!(self.requests, "{}", json!({"seed": seed, "keep": keep})).unwrap();
        self.requests.flush().unwrap();
    }

    /// What the stream said: a line a step, and how its process ended.
    pub(crate) fn answer(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            // The client is there until it is told to end.
            let line = self.lines.next().unwrap().unwrap();
            let end = line.starts_with("end ");
            said.push(line);
            if end {
                return said;
            }
        }
    }

    /// Plays a stream to its end.
    pub(crate) fn play(&mut self, seed: u64, keep: &[usize]) -> Vec<String> {
        self.ask(seed, keep);
        self.answer()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let ended = self.client.kill().and_then(|()| self.client.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}
