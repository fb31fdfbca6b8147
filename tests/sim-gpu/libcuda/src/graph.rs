//! Graphs: nodes, the edges between them, copies, and the memory that graphs own.
//!
//! Owns [`Graph`] and [`Node`]; what nodes are made of is in [`crate::graph_nodes`], running them in
//! [`crate::graph_exec`]. Edges carry no data here (programmatic launches have no meaning without kernels that run),
//! so every edge has the default data and no query loses anything.

use core::ffi::{c_uint, c_ulonglong};

use vgpu_cuda_sys::Out;
use vgpu_cuda_sys::cuda::*;

use crate::copy::Shape;
use crate::error::{Cu, Fail, ensure, ensure_or, fail, put};
use crate::launch::KernelCall;
use crate::memset::Fill;
use crate::queue::HostCall;
use crate::region::Kind;
use crate::state::{Map, State, handle, id, lock, node};
use crate::value::ValueOp;

/// What a node does.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Kernel(Box<KernelCall>),
    Copy(Box<Shape>),
    Fill(Fill),
    Host(HostCall),
    /// A graph of its own, owned by the node.
    Child(u64),
    Empty,
    Await(u64),
    Record(u64),
    Alloc {
        address: u64,
        size: u64,
        device: usize,
    },
    Free(u64),
    Values(Vec<ValueOp>),
    /// A prefetch or the like that was captured.
    Busy(u64),
}

impl What {
    /// `cuGraphNodeGetType`.
    pub(crate) fn kind(&self) -> CUgraphNodeType {
        match self {
            Self::Kernel(_) => CU_GRAPH_NODE_TYPE_KERNEL,
            Self::Copy(_) => CU_GRAPH_NODE_TYPE_MEMCPY,
            Self::Fill(_) => CU_GRAPH_NODE_TYPE_MEMSET,
            Self::Host(_) => CU_GRAPH_NODE_TYPE_HOST,
            Self::Child(_) => CU_GRAPH_NODE_TYPE_GRAPH,
            Self::Empty | Self::Busy(_) => CU_GRAPH_NODE_TYPE_EMPTY,
            Self::Await(_) => CU_GRAPH_NODE_TYPE_WAIT_EVENT,
            Self::Record(_) => CU_GRAPH_NODE_TYPE_EVENT_RECORD,
            Self::Alloc { .. } => CU_GRAPH_NODE_TYPE_MEM_ALLOC,
            Self::Free(_) => CU_GRAPH_NODE_TYPE_MEM_FREE,
            Self::Values(_) => CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
        }
    }
}

/// One graph.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Its nodes, oldest first.
    pub(crate) nodes: Vec<u64>,
    serial: u64,
    last_local: u32,
    /// The node that owns it; 0 for a graph of the program.
    pub(crate) owner: u64,
    /// The graph that it was cloned from, and which node came from which: (original, clone).
    origin: u64,
    clones: Vec<(u64, u64)>,
    /// References to user objects.
    pub(crate) objects: Map<u32>,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) graph: u64,
    pub(crate) what: What,
    /// Nodes that come before it.
    pub(crate) after: Vec<u64>,
    local: u32,
    tools: u64,
    pub(crate) attributes: Map<[u64; 8]>,
}

/// An object of the program that graphs keep alive.
#[derive(Debug)]
pub(crate) struct UserObject {
    pub(crate) count: u32,
    pub(crate) destroy: HostCall,
}

impl State {
    pub(crate) fn graph(&mut self, graph: u64) -> Cu<&mut Graph> {
        self.graphs
            .get_mut(&graph)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))
    }

    pub(crate) fn node(&mut self, node: u64) -> Cu<&mut Node> {
        self.nodes
            .get_mut(&node)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))
    }

    pub(crate) fn new_graph(&mut self) -> u64 {
        let graph = self.new_handle();
        let serial = self.new_serial();
        self.graphs.insert(
            graph,
            Graph {
                serial,
                ..Graph::default()
            },
        );
        graph
    }

    /// Adds a node after others of the same graph.
    pub(crate) fn add_node(&mut self, graph: u64, after: Vec<u64>, what: What) -> Cu<u64> {
        self.graph(graph)?;
        for before in &after {
            ensure(self.node(*before)?.graph == graph)?;
        }
        let distinct = after
            .iter()
            .enumerate()
            .all(|(index, node)| !after[..index].contains(node));
        ensure(distinct)?;
        let node = self.new_handle();
        let tools = self.new_serial();
        let known = self.graph(graph)?;
        known.last_local += 1;
        let local = known.last_local;
        known.nodes.push(node);
        if let What::Child(child) = what {
            self.graph(child)?.owner = node;
        }
        self.nodes.insert(
            node,
            Node {
                graph,
                what,
                after,
                local,
                tools,
                attributes: Map::default(),
            },
        );
        Ok(node)
    }

    /// Copies a graph with its child graphs. Memory nodes cannot be copied: their addresses are the original's.
    pub(crate) fn clone_graph(&mut self, original: u64) -> Cu<u64> {
        let nodes = self.graph(original)?.nodes.clone();
        let copy = self.new_graph();
        let mut clones: Vec<(u64, u64)> = Vec::new();
        for from in nodes {
            let (what, after, attributes) = {
                let node = self.node(from)?;
                (
                    node.what.clone(),
                    node.after.clone(),
                    node.attributes.clone(),
                )
            };
            let what = match what {
                What::Child(child) => What::Child(self.clone_graph(child)?),
                other => other,
            };
            // Edges may lead to nodes that were added later, so they follow when all nodes are there.
            let to = self.add_node(copy, Vec::new(), what)?;
            let node = self.node(to)?;
            node.attributes = attributes;
            node.after = after;
            clones.push((from, to));
        }
        for &(_, to) in &clones {
            let node = self.node(to)?;
            for before in &mut node.after {
                *before = clones
                    .iter()
                    .find(|pair| pair.0 == *before)
                    .map_or(0, |pair| pair.1);
            }
        }
        let known = self.graph(copy)?;
        known.origin = original;
        known.clones = clones;
        Ok(copy)
    }

    /// Destroys a graph. Memory that it owns lives on while instances of it do, since they use the addresses.
    pub(crate) fn end_graph(&mut self, graph: u64) -> Vec<HostCall> {
        let Some(ended) = self.graphs.remove(&graph) else {
            return Vec::new();
        };
        let mut calls = Vec::new();
        for node in ended.nodes {
            calls.extend(self.end_node(node));
        }
        for (object, count) in ended.objects {
            calls.extend(self.drop_object(object, count));
        }
        calls
    }

    fn end_node(&mut self, node: u64) -> Vec<HostCall> {
        match self.nodes.remove(&node).map(|node| node.what) {
            Some(What::Child(child)) => self.end_graph(child),
            _ => Vec::new(),
        }
    }

    pub(crate) fn drop_object(&mut self, object: u64, count: u32) -> Option<HostCall> {
        let known = self.user_objects.get_mut(&object)?;
        known.count = known.count.saturating_sub(count);
        if known.count > 0 {
            return None;
        }
        self.user_objects
            .remove(&object)
            .map(|object| object.destroy)
    }

    /// Whether `early` comes before `late`, or is it.
    pub(crate) fn leads_to(&self, early: u64, late: u64) -> bool {
        let mut todo = vec![late];
        let mut seen = Vec::new();
        while let Some(node) = todo.pop() {
            if node == early {
                return true;
            }
            if !seen.contains(&node) {
                seen.push(node);
                todo.extend(
                    self.nodes
                        .get(&node)
                        .map(|node| node.after.clone())
                        .unwrap_or_default(),
                );
            }
        }
        false
    }

    pub(crate) fn edges(&mut self, graph: u64) -> Cu<Vec<(u64, u64)>> {
        let nodes = self.graph(graph)?.nodes.clone();
        let into = |to: u64| {
            let after = self
                .nodes
                .get(&to)
                .map(|node| node.after.clone())
                .unwrap_or_default();
            after.into_iter().map(move |from| (from, to))
        };
        Ok(nodes.into_iter().flat_map(into).collect())
    }

    /// A graph's memory comes to life at an address, or goes.
    pub(crate) fn graph_memory(&mut self, address: u64, live: bool) -> Cu {
        let region = self
            .regions
            .starting_at(address)
            .ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?;
        let Kind::Graph { live: was } = &mut region.kind else {
            return fail(CUDA_ERROR_INVALID_VALUE);
        };
        ensure(*was != live)?;
        *was = live;
        let (device, size) = (region.device, region.size);
        let [used, used_high, ..] = &mut self.devices[device].graph_memory;
        *used = if live { *used + size } else { *used - size };
        *used_high = (*used_high).max(*used);
        Ok(())
    }

    /// Reserves device memory so that `more` bytes of graph memory can come to life.
    pub(crate) fn reserve_graph_memory(&mut self, device: usize, more: u64) -> Cu {
        let [used, _, reserved, reserved_high] = self.devices[device].graph_memory;
        let needed = (used + more).next_multiple_of(2 << 20);
        if needed > reserved {
            node().charge(self.gpu(device), needed - reserved)?;
            self.devices[device].graph_memory[2] = needed;
            self.devices[device].graph_memory[3] = reserved_high.max(needed);
        }
        Ok(())
    }
}

/// Runs what the program wants told when its objects go.
pub(crate) fn run_all(calls: Vec<HostCall>) {
    calls.into_iter().for_each(crate::queue::call_program);
}

pub(crate) fn create(out: Out<CUgraph>, flags: c_uint) -> Cu {
    ensure(!out.is_null() && flags == 0)?;
    let graph = lock().new_graph();
    put(out, handle(graph))
}

pub(crate) fn destroy(graph: CUgraph) -> Cu {
    let calls = {
        let mut state = lock();
        ensure(state.graph(id(graph))?.owner == 0)?;
        state.end_graph(id(graph))
    };
    run_all(calls);
    Ok(())
}

pub(crate) fn clone(out: Out<CUgraph>, original: CUgraph) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let nodes = state.graph(id(original))?.nodes.clone();
    for node in nodes {
        let memory = matches!(state.node(node)?.what, What::Alloc { .. } | What::Free(_));
        ensure_or(!memory, CUDA_ERROR_NOT_SUPPORTED)?;
    }
    let copy = state.clone_graph(id(original))?;
    put(out, handle(copy))
}

pub(crate) fn get_id(graph: CUgraph, out: Out<c_uint>) -> Cu {
    let serial = lock().graph(id(graph))?.serial;
    put(out, serial as c_uint)
}

pub(crate) fn find_in_clone(out: Out<CUgraphNode>, original: CUgraphNode, cloned: CUgraph) -> Cu {
    ensure(!out.is_null())?;
    let mut state = lock();
    let known = state.graph(id(cloned))?;
    let found = known.clones.iter().find(|pair| pair.0 == id(original));
    put(out, handle(found.ok_or(Fail(CUDA_ERROR_INVALID_VALUE))?.1))
}

pub(crate) fn get_type(node: CUgraphNode, out: Out<CUgraphNodeType>) -> Cu {
    let kind = lock().node(id(node))?.what.kind();
    put(out, kind)
}

pub(crate) fn containing(node: CUgraphNode, out: Out<CUgraph>) -> Cu {
    let graph = lock().node(id(node))?.graph;
    put(out, handle(graph))
}

pub(crate) fn local_id(node: CUgraphNode, out: Out<c_uint>) -> Cu {
    let local = lock().node(id(node))?.local;
    put(out, local)
}

pub(crate) fn tools_id(node: CUgraphNode, out: Out<c_ulonglong>) -> Cu {
    let tools = lock().node(id(node))?.tools;
    put(out, tools)
}

/// `cuGraphDestroyNode`: not for memory nodes, whose addresses others may know.
pub(crate) fn destroy_node(node: CUgraphNode) -> Cu {
    let calls = {
        let mut state = lock();
        let known = state.node(id(node))?;
        let memory = matches!(known.what, What::Alloc { .. } | What::Free(_));
        let graph = known.graph;
        ensure_or(!memory, CUDA_ERROR_NOT_SUPPORTED)?;
        state.graph(graph)?.nodes.retain(|&other| other != id(node));
        for other in state.nodes.values_mut() {
            other.after.retain(|&before| before != id(node));
        }
        state.end_node(id(node))
    };
    run_all(calls);
    Ok(())
}
