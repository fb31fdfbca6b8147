//! The simulated `libnvidia-ml.so.1`, through the clients that people use: `nvml-wrapper`, `nvidia-ml-py` and the
//! NVML half of `cuda-bindings`, none of them changed.
//!
//! Memory and work on the GPUs come from clients of the node itself, so that a failure here is NVML's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "a test stops with the reason"
)]

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use nvml_wrapper::bitmasks::event::EventTypes;
    use nvml_wrapper::enum_wrappers::device::{
        Brand, Clock, ComputeMode, PcieUtilCounter, TemperatureSensor, TopologyLevel,
    };
    use nvml_wrapper::enums::device::{DeviceArchitecture, SampleValue, UsedGpuMemory};
    use nvml_wrapper::error::NvmlError;
    use nvml_wrapper::structs::device::FieldId;
    use nvml_wrapper::{Device, Nvml};
    use object::{Object, ObjectSymbol};
    use sim_gpu::client::{Kind, Node as Client};
    use sim_gpu::config::MIB;
    use vgpu_tests::node::Node;
    use vgpu_tests::{Outcome, built, wait_until};

    const GIB: u64 = 1 << 30;

    fn library(node: &Node) -> PathBuf {
        node.root()
            .join("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    }

    fn nvml(node: &Node) -> Nvml {
        Nvml::builder()
            .lib_path(library(node).as_os_str())
            .init()
            .unwrap()
    }

    /// A process of the node, as far as the node can tell: this one.
    fn client(node: &Node) -> Client {
        Client::connect(&node.root(), Kind::Cuda).unwrap()
    }

    fn processes(device: &Device<'_>) -> Vec<(u32, u64)> {
        let bytes = |memory| match memory {
            UsedGpuMemory::Used(bytes) => bytes,
            UsedGpuMemory::Unavailable => panic!("no byte count"),
        };
        let list = device.running_compute_processes().unwrap();
        list.into_iter()
            .map(|process| (process.pid, bytes(process.used_gpu_memory)))
            .collect()
    }

    #[test]
    fn the_header_s_functions_are_exported_and_nothing_else() {
        macro_rules! names {
            ($({ $slot:literal $class:ident $name:ident $($rest:tt)* })*) => {
                [$(stringify!($name)),*]
            };
        }
        let expected: BTreeSet<String> = vgpu_cuda_sys::nvml_table!(names)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let node = Node::up();
        let file = fs::read(library(&node)).unwrap();
        let file = object::File::parse(&*file).unwrap();
        let exported: BTreeSet<String> = file
            .dynamic_symbols()
            .filter(|symbol| symbol.is_global() && symbol.is_definition())
            .map(|symbol| symbol.name().unwrap().to_owned())
            .collect();
        assert_eq!(exported, expected);
        let link = fs::read_link(library(&node)).unwrap();
        assert_eq!(link.to_str(), Some("libnvidia-ml.so.580.95.05"));
    }

    #[test]
    fn the_default_node_is_two_h200() {
        let node = Node::up();
        let nvml = nvml(&node);
        assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
        assert_eq!(nvml.sys_nvml_version().unwrap(), "13.580.95.05");
        assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 13000);
        assert_eq!(nvml.device_count().unwrap(), 2);
        let device = nvml.device_by_index(1).unwrap();
        assert_eq!(device.name().unwrap(), "NVIDIA H200");
        assert_eq!(device.minor_number().unwrap(), 1);
        assert_eq!(device.brand().unwrap(), Brand::Nvidia);
        assert_eq!(device.architecture().unwrap(), DeviceArchitecture::Hopper);
        let capability = device.cuda_compute_capability().unwrap();
        assert_eq!((capability.major, capability.minor), (9, 0));
        assert_eq!(device.num_cores().unwrap(), 132 * 128);
        let memory = device.memory_info().unwrap();
        assert_eq!(memory.total, 143_771 * MIB);
        assert_eq!(memory.reserved + memory.used + memory.free, memory.total);
        let pci = device.pci_info().unwrap();
        assert_eq!((pci.bus_id.as_str(), pci.bus), ("00000000:43:00.0", 0x43));
        assert_eq!(pci.pci_device_id, 0x2335_10DE);
        assert_eq!(device.bar1_memory_info().unwrap().total, 256 * GIB);
    }

    #[test]
    #[allow(deprecated, reason = "by serial number is deprecated, and in use")]
    fn a_gpu_is_found_by_each_of_its_names() {
        let node = Node::up();
        let nvml = nvml(&node);
        let device = nvml.device_by_index(1).unwrap();
        let uuid = device.uuid().unwrap();
        let serial = device.serial().unwrap();
        assert_eq!(
            nvml.device_by_uuid(uuid.as_str()).unwrap().index().unwrap(),
            1
        );
        assert_eq!(
            nvml.device_by_serial(serial.as_str())
                .unwrap()
                .index()
                .unwrap(),
            1
        );
        for bus_id in ["00000000:43:00.0", "0000:43:00.0", "43:00.0"] {
            assert_eq!(
                nvml.device_by_pci_bus_id(bus_id).unwrap().index().unwrap(),
                1
            );
        }
        let unknown = nvml.device_by_uuid("GPU-00000000-0000-0000-0000-000000000000");
        assert!(matches!(unknown, Err(NvmlError::NotFound)));
        assert!(matches!(
            nvml.device_by_index(2),
            Err(NvmlError::InvalidArg)
        ));
    }

    #[test]
    fn a_description_changes_what_is_seen() {
        let node = Node::described(
            "driver_version = \"550.163.01\"\ncuda_version = \"12.4\"\ncount = 3\n\
             [gpu]\nname = \"NVIDIA L4\"\nvram_mib = 23034\ncompute_capability = \"8.9\"\n\
             [[gpus]]\nminor = 5\nuuid = \"GPU-11111111-2222-3333-4444-555555555555\"\n",
        );
        let nvml = nvml(&node);
        assert_eq!(nvml.sys_nvml_version().unwrap(), "12.550.163.01");
        assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12040);
        assert_eq!(nvml.device_count().unwrap(), 3);
        let device = nvml.device_by_index(0).unwrap();
        assert_eq!(device.name().unwrap(), "NVIDIA L4");
        assert_eq!(device.minor_number().unwrap(), 5);
        assert_eq!(
            device.uuid().unwrap(),
            "GPU-11111111-2222-3333-4444-555555555555"
        );
        assert_eq!(device.architecture().unwrap(), DeviceArchitecture::Ada);
    }

    #[test]
    fn memory_is_seen_per_process_and_goes_with_it() {
        let node = Node::up();
        let nvml = nvml(&node);
        let device = nvml.device_by_index(0).unwrap();
        assert_eq!(processes(&device), []);
        let client = client(&node);
        client.alloc(0, 3 * GIB).unwrap();
        assert_eq!(processes(&device), [], "no context, so no compute process");
        client.context_add(0).unwrap();
        let held = 3 * GIB + 512 * MIB;
        assert_eq!(processes(&device), [(std::process::id(), held)]);
        assert_eq!(device.running_compute_processes_count().unwrap(), 1);
        assert_eq!(device.running_graphics_processes_count().unwrap(), 0);
        assert_eq!(device.memory_info().unwrap().used, held);
        assert_eq!(
            nvml.device_by_index(1).unwrap().memory_info().unwrap().used,
            0
        );
        let second = Client::connect(&node.root(), Kind::Cuda).unwrap();
        second.alloc(0, MIB).unwrap();
        let both = [(std::process::id(), held + MIB)];
        assert_eq!(
            processes(&device),
            both,
            "one process, however many libraries it has loaded"
        );
        drop((client, second));
        wait_until("the memory is free again", 5, || {
            device.memory_info().unwrap().used == 0 && processes(&device).is_empty()
        });
    }

    #[test]
    fn a_full_gpu_has_nothing_free() {
        let node = Node::up();
        let client = client(&node);
        let nvml = nvml(&node);
        let device = nvml.device_by_index(0).unwrap();
        client.alloc(0, device.memory_info().unwrap().free).unwrap();
        assert!(client.alloc(0, 1).is_err());
        let memory = device.memory_info().unwrap();
        assert_eq!(
            (memory.free, memory.used),
            (0, memory.total - memory.reserved)
        );
    }

    #[test]
    fn work_shows_as_use_of_gpu_and_process() {
        let node = Node::up();
        let client = client(&node);
        client.context_add(0).unwrap();
        let nvml = nvml(&node);
        let device = nvml.device_by_index(0).unwrap();
        assert_eq!(device.utilization_rates().unwrap().gpu, 0);
        let (idle_clock, idle_power) = (device.clock_info(Clock::SM), device.power_usage());
        client.submit(0, 20_000_000_000).unwrap();
        wait_until("the GPU is busy", 10, || {
            device.utilization_rates().unwrap().gpu == 100
        });
        let samples = device.process_utilization_stats(None).unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(
            (samples[0].pid, samples[0].sm_util),
            (std::process::id(), 100)
        );
        assert!(device.clock_info(Clock::SM).unwrap() > idle_clock.unwrap());
        assert!(device.power_usage().unwrap() > idle_power.unwrap());
        assert_eq!(
            nvml.device_by_index(1)
                .unwrap()
                .utilization_rates()
                .unwrap()
                .gpu,
            0
        );
        let kind = nvml_wrapper::enum_wrappers::device::Sampling::GpuUtilization;
        let samples = device.samples(kind, None).unwrap();
        assert!(
            samples
                .iter()
                .any(|sample| sample.value == SampleValue::U32(100))
        );
    }

    #[test]
    fn the_rest_of_a_monitor_s_questions_is_answered() {
        let node = Node::up();
        let nvml = nvml(&node);
        let device = nvml.device_by_index(0).unwrap();
        assert_eq!(device.compute_mode().unwrap(), ComputeMode::Default);
        assert!(device.is_ecc_enabled().unwrap().currently_enabled);
        assert!((20..60).contains(&device.temperature(TemperatureSensor::Gpu).unwrap()));
        assert_eq!(device.max_clock_info(Clock::SM).unwrap(), 1980);
        assert_eq!(device.enforced_power_limit().unwrap(), 700_000);
        assert_eq!(device.current_pcie_link_width().unwrap(), 16);
        assert_eq!(device.pcie_throughput(PcieUtilCounter::Send).unwrap(), 0);
        assert!(!device.supported_graphics_clocks(3201).unwrap().is_empty());
        assert!(!device.is_multi_gpu_board().unwrap());
        let other = nvml.device_by_index(1).unwrap();
        assert!(!nvml.are_devices_on_same_board(&device, &other).unwrap());
        let ancestor = device.topology_common_ancestor(other).unwrap();
        assert_eq!(ancestor, TopologyLevel::Node);
        assert!(matches!(device.fan_speed(0), Err(NvmlError::NotSupported)));
        let fields = device
            .field_values_for(&[FieldId(1), FieldId(60_000)])
            .unwrap();
        assert_eq!(
            fields[0].as_ref().unwrap().value.as_ref().unwrap(),
            &SampleValue::U32(1)
        );
        let unknown = fields[1].as_ref().unwrap().value.as_ref();
        assert!(matches!(unknown, Err(NvmlError::NotSupported)));
    }

    #[test]
    fn waiting_for_events_ends_in_time() {
        let node = Node::up();
        let nvml = nvml(&node);
        let device = nvml.device_by_index(0).unwrap();
        let events = nvml.create_event_set().unwrap();
        let events = device
            .register_events(EventTypes::CRITICAL_XID_ERROR, events)
            .unwrap();
        let start = Instant::now();
        assert!(matches!(events.wait(50), Err(NvmlError::Timeout)));
        assert!(start.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_gpu_without_its_device_node_is_not_there() {
        let node = Node::up();
        fs::remove_file(node.root().join("dev/nvidia0")).unwrap();
        let nvml = nvml(&node);
        assert_eq!(nvml.device_count().unwrap(), 1);
        let device = nvml.device_by_index(0).unwrap();
        assert_eq!(
            (device.index().unwrap(), device.minor_number().unwrap()),
            (0, 1)
        );
    }

    #[test]
    fn without_its_node_the_library_finds_no_driver() {
        let node = Node::up();
        let library = node.folder().join("libnvidia-ml.so.1");
        fs::copy(self::library(&node), &library).unwrap();
        let outcome = Nvml::builder().lib_path(library.as_os_str()).init();
        assert!(
            matches!(outcome, Err(NvmlError::DriverNotLoaded)),
            "{outcome:?}"
        );
    }

    /// Runs a script with an unmodified Python client; nothing where the clients are not installed.
    fn python(node: &Node, script: &str) -> Option<String> {
        let venv = std::env::var_os("VGPU_VENV")
            .map_or_else(|| built::project().join("target/tools/venv"), PathBuf::from);
        if !venv.join("bin/python").exists() && std::env::var("CI").as_deref() != Ok("true") {
            eprintln!(
                "SKIPPED: no Python clients in {}: run `make setup`",
                venv.display()
            );
            return None;
        }
        let mut command = Command::new(built::python());
        command
            .args(["-c", script])
            .env("LD_LIBRARY_PATH", library(node).parent().unwrap());
        Some(Outcome::of(command.stderr(Stdio::piped())).good())
    }

    #[test]
    fn nvidia_ml_py_works() {
        let node = Node::up();
        let client = client(&node);
        client.context_add(0).unwrap();
        let script = "
import pynvml as n
try:
    n.nvmlDeviceGetCount()
except n.NVMLError_Uninitialized as e:
    print('before:', e)
n.nvmlInit(); n.nvmlInit(); n.nvmlShutdown()
print(n.nvmlSystemGetDriverVersion(), n.nvmlDeviceGetCount())
h = n.nvmlDeviceGetHandleByIndex(0)
one, two = n.nvmlDeviceGetMemoryInfo(h), n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
print(one.total >> 20, one.used >> 20, two.used >> 20, two.reserved >> 20)
print([(p.pid, p.usedGpuMemory >> 20) for p in n.nvmlDeviceGetComputeRunningProcesses(h)])
print(n.nvmlDeviceGetPciInfo(h).busId, n.nvmlDeviceGetMigMode(h), n.nvmlDeviceGetEccMode(h))
n.nvmlShutdown()
try:
    n.nvmlDeviceGetCount()
except n.NVMLError_Uninitialized as e:
    print('after:', e)
";
        let Some(said) = python(&node, script) else {
            return;
        };
        let expected = format!(
            "before: Uninitialized\n580.95.05 2\n143771 1112 512 600\n[({}, 512)]\n\
             00000000:1B:00.0 [0, 0] [1, 1]\nafter: Uninitialized\n",
            std::process::id()
        );
        assert_eq!(said, expected);
    }

    #[test]
    fn a_forked_child_gets_a_connection_of_its_own() {
        let node = Node::up();
        let script = "
import os, pynvml as n
n.nvmlInit()
child = os.fork()
if child == 0:
    os._exit(n.nvmlDeviceGetCount())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), n.nvmlDeviceGetCount())
";
        let Some(said) = python(&node, script) else {
            return;
        };
        assert_eq!(said, "2 2\n");
    }

    #[test]
    fn cuda_bindings_work() {
        let node = Node::up();
        let client = client(&node);
        client.context_add(1).unwrap();
        client.alloc(1, GIB).unwrap();
        let script = "
from cuda.bindings import nvml as n
n.init_v2()
h = n.device_get_handle_by_index_v2(1)
print(n.device_get_count_v2(), n.device_get_name(h), n.device_get_cuda_compute_capability(h))
m = n.device_get_memory_info_v2(h)
print(m.total >> 20, m.used >> 20, m.free >> 20)
p = n.device_get_compute_running_processes_v3(h)
print(p.pid, p.used_gpu_memory >> 20)
n.shutdown()
";
        let Some(said) = python(&node, script) else {
            return;
        };
        let pid = std::process::id();
        let expected = format!("2 NVIDIA H200 (9, 0)\n143771 1536 141635\n{pid} 1536\n");
        assert_eq!(said, expected);
    }
}
