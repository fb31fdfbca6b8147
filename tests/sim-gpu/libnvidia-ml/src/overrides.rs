//! The functions that do something, and where their bodies are: one line each.
//!
//! `value!` rows are functions of (device, one output), `pair!` rows have two outputs of one type, `text!` rows
//! fill a buffer of a given length. Everything else is written out. A function that is missing here answers "not
//! supported".

#![allow(non_snake_case, reason = "the header's names")]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_ulonglong};

use vgpu_cuda_sys::nvml::*;
use vgpu_cuda_sys::{In, Out};

use crate::answer::{Answer, put, put_characters, put_text, status};
use crate::api::{Api, Simulation};
use crate::handle::{self, Gpu};
use crate::{clock, device, event, field, memory, process, system, topology};

/// One value of a GPU.
fn value<T>(device: nvmlDevice_t, out: Out<T>, body: impl Fn(&Gpu) -> Answer<T>) -> Answer {
    put(out, body(&handle::gpu(device)?)?)
}

/// Two values of a GPU; both places must be there before either is written.
fn pair<T>(
    device: nvmlDevice_t,
    (first, second): (Out<T>, Out<T>),
    body: impl Fn(&Gpu) -> Answer<(T, T)>,
) -> Answer {
    let values = body(&handle::gpu(device)?)?;
    if second.is_null() {
        return Err(crate::answer::INVALID);
    }
    put(first, values.0)?;
    put(second, values.1)
}

macro_rules! value {
    ($($name:ident: $type:ty = $body:expr;)*) => {
        $(fn $name(device: nvmlDevice_t, out: Out<$type>) -> nvmlReturn_t {
            status(value(device, out, $body))
        })*
    };
}

macro_rules! pair {
    ($($name:ident: $type:ty = $body:expr;)*) => {
        $(fn $name(device: nvmlDevice_t, first: Out<$type>, second: Out<$type>) -> nvmlReturn_t {
            status(pair(device, (first, second), $body))
        })*
    };
}

macro_rules! text {
    ($($name:ident = $body:expr;)*) => {
        $(fn $name(device: nvmlDevice_t, out: Out<c_char>, length: c_uint) -> nvmlReturn_t {
            let body: fn(&Gpu) -> String = $body;
            status(handle::gpu(device).and_then(|gpu| put_text(out, length, &body(&gpu))))
        })*
    };
}

/// Rows with any arguments: `name(arguments) = answer;`.
macro_rules! other {
    ($($name:ident($($argument:ident: $type:ty),*) = $answer:expr;)*) => {
        $(fn $name($($argument: $type),*) -> nvmlReturn_t {
            status($answer)
        })*
    };
}

impl Api for Simulation {
    fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
        system::error_text(result)
    }

    other! {
        nvmlInit() = handle::initialise();
        nvmlInit_v2() = handle::initialise();
        nvmlInitWithFlags(_flags: c_uint) = handle::initialise();
        nvmlShutdown() = handle::shut_down();
        nvmlSystemGetDriverVersion(out: Out<c_char>, length: c_uint) = system::driver_version(out, length);
        nvmlSystemGetNVMLVersion(out: Out<c_char>, length: c_uint) = system::nvml_version(out, length);
        nvmlSystemGetCudaDriverVersion(out: Out<c_int>) = system::cuda_version(out);
        nvmlSystemGetCudaDriverVersion_v2(out: Out<c_int>) = system::cuda_version(out);
        nvmlSystemGetDriverBranch(out: Out<nvmlSystemDriverBranchInfo_t>, length: c_uint) = system::driver_branch(out, length);
        nvmlSystemGetProcessName(pid: c_uint, out: Out<c_char>, length: c_uint) = system::process_name(pid, out, length);
        nvmlDeviceGetCount(out: Out<c_uint>) = system::count(out);
        nvmlDeviceGetCount_v2(out: Out<c_uint>) = system::count(out);
        nvmlUnitGetCount(out: Out<c_uint>) = system::none(out);
        nvmlGetExcludedDeviceCount(out: Out<c_uint>) = system::none(out);
        nvmlDeviceGetHandleByIndex(index: c_uint, out: Out<nvmlDevice_t>) = system::by_index(index, out);
        nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: Out<nvmlDevice_t>) = system::by_index(index, out);
        nvmlDeviceGetHandleByUUID(uuid: In<c_char>, out: Out<nvmlDevice_t>) = system::by_uuid(uuid, out);
        nvmlDeviceGetHandleByUUIDV(uuid: In<nvmlUUID_t>, out: Out<nvmlDevice_t>) = system::by_uuid_value(uuid, out);
        nvmlDeviceGetHandleBySerial(serial: In<c_char>, out: Out<nvmlDevice_t>) = system::by_serial(serial, out);
        nvmlDeviceGetHandleByPciBusId(bus_id: In<c_char>, out: Out<nvmlDevice_t>) = system::by_bus_id(bus_id, out);
        nvmlDeviceGetHandleByPciBusId_v2(bus_id: In<c_char>, out: Out<nvmlDevice_t>) = system::by_bus_id(bus_id, out);
    }

    text! {
        nvmlDeviceGetName = device::name;
        nvmlDeviceGetUUID = device::uuid;
        nvmlDeviceGetSerial = device::serial;
        nvmlDeviceGetBoardPartNumber = |_| "699-2G520-0285-500".to_owned();
        nvmlDeviceGetVbiosVersion = |_| "96.00.C4.00.02".to_owned();
        nvmlDeviceGetInforomImageVersion = |_| "G520.0285.00.02".to_owned();
    }

    value! {
        nvmlDeviceGetIndex: c_uint = |gpu| Ok(gpu.index);
        nvmlDeviceGetMinorNumber: c_uint = |gpu| Ok(gpu.config.minor);
        nvmlDeviceGetModuleId: c_uint = |gpu| Ok(gpu.page_index as c_uint);
        nvmlDeviceGetBoardId: c_uint = device::board_id;
        nvmlDeviceGetMultiGpuBoard: c_uint = |_| Ok(0);
        nvmlDeviceGetBrand: nvmlBrandType_t = |_| Ok(NVML_BRAND_NVIDIA);
        nvmlDeviceGetBusType: nvmlBusType_t = |_| Ok(NVML_BUS_TYPE_PCIE);
        nvmlDeviceGetArchitecture: nvmlDeviceArchitecture_t = device::architecture;
        nvmlDeviceGetNumGpuCores: c_uint = device::cores;
        nvmlDeviceGetMemoryBusWidth: c_uint = |gpu| Ok(gpu.config.memory_bus_bits);
        nvmlDeviceGetComputeMode: nvmlComputeMode_t = device::compute_mode;
        nvmlDeviceGetPersistenceMode: nvmlEnableState_t = device::persistence_mode;
        nvmlDeviceGetDisplayMode: nvmlEnableState_t = |_| Ok(NVML_FEATURE_DISABLED);
        nvmlDeviceGetDisplayActive: nvmlEnableState_t = |_| Ok(NVML_FEATURE_DISABLED);
        nvmlDeviceGetAccountingMode: nvmlEnableState_t = |_| Ok(NVML_FEATURE_ENABLED);
        nvmlDeviceGetAccountingBufferSize: c_uint = |_| Ok(4000);
        nvmlDeviceGetVirtualizationMode: nvmlGpuVirtualizationMode_t = |_| Ok(NVML_GPU_VIRTUALIZATION_MODE_NONE);
        nvmlDeviceGetDefaultEccMode: nvmlEnableState_t = |_| Ok(NVML_FEATURE_ENABLED);
        nvmlDeviceGetRetiredPagesPendingStatus: nvmlEnableState_t = |_| Ok(NVML_FEATURE_DISABLED);
        nvmlDeviceGetMaxPcieLinkGeneration: c_uint = |_| Ok(5);
        nvmlDeviceGetGpuMaxPcieLinkGeneration: c_uint = |_| Ok(5);
        nvmlDeviceGetCurrPcieLinkGeneration: c_uint = |_| Ok(5);
        nvmlDeviceGetMaxPcieLinkWidth: c_uint = |_| Ok(16);
        nvmlDeviceGetCurrPcieLinkWidth: c_uint = |_| Ok(16);
        nvmlDeviceGetPcieReplayCounter: c_uint = |_| Ok(0);
        nvmlDeviceGetNumaNodeId: c_uint = |_| Ok(0);
        nvmlDeviceGetPerformanceState: nvmlPstates_t = |_| Ok(NVML_PSTATE_0);
        nvmlDeviceGetPowerState: nvmlPstates_t = |_| Ok(NVML_PSTATE_0);
        nvmlDeviceGetMaxMigDeviceCount: c_uint = |_| Ok(7);
        nvmlDeviceIsMigDeviceHandle: c_uint = |_| Ok(0);
        nvmlDeviceGetSupportedEventTypes: c_ulonglong = |_| Ok(event::SUPPORTED);
        nvmlDeviceGetMemoryInfo: nvmlMemory_t = memory::info;
        nvmlDeviceGetBAR1MemoryInfo: nvmlBAR1Memory_t = memory::bar1;
        nvmlDeviceGetUtilizationRates: nvmlUtilization_t = process::rates;
        nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = clock::reasons;
        nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = clock::reasons;
        nvmlDeviceGetSupportedClocksEventReasons: c_ulonglong = |_| Ok(nvmlClocksEventReasonGpuIdle.into());
        nvmlDeviceGetSupportedClocksThrottleReasons: c_ulonglong = |_| Ok(nvmlClocksEventReasonGpuIdle.into());
        nvmlDeviceGetPowerUsage: c_uint = clock::power;
        nvmlDeviceGetPowerManagementMode: nvmlEnableState_t = |_| Ok(NVML_FEATURE_ENABLED);
        nvmlDeviceGetPowerManagementLimit: c_uint = clock::power_limit;
        nvmlDeviceGetPowerManagementDefaultLimit: c_uint = clock::power_limit;
        nvmlDeviceGetEnforcedPowerLimit: c_uint = clock::power_limit;
        nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = clock::energy;
    }

    pair! {
        nvmlDeviceGetCudaComputeCapability: c_int = device::compute_capability;
        nvmlDeviceGetEccMode: nvmlEnableState_t = |_| Ok((NVML_FEATURE_ENABLED, NVML_FEATURE_ENABLED));
        nvmlDeviceGetMigMode: c_uint = |_| Ok((NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_DISABLE));
        nvmlDeviceGetGspFirmwareMode: c_uint = |_| Ok((1, 1));
        nvmlDeviceGetPowerManagementLimitConstraints: c_uint = clock::power_constraints;
        nvmlDeviceGetEncoderUtilization: c_uint = |_| Ok((0, 167_000));
        nvmlDeviceGetDecoderUtilization: c_uint = |_| Ok((0, 167_000));
        nvmlDeviceGetJpgUtilization: c_uint = |_| Ok((0, 167_000));
        nvmlDeviceGetOfaUtilization: c_uint = |_| Ok((0, 167_000));
    }

    // What a GPU is.
    other! {
        nvmlDeviceGetPciInfo(device: nvmlDevice_t, out: Out<nvmlPciInfo_t>) = device::pci_info(device, out, 1);
        nvmlDeviceGetPciInfo_v2(device: nvmlDevice_t, out: Out<nvmlPciInfo_t>) = device::pci_info(device, out, 2);
        nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, out: Out<nvmlPciInfo_t>) = device::pci_info(device, out, 3);
        nvmlDeviceGetPciInfoExt(device: nvmlDevice_t, out: Out<nvmlPciInfoExt_t>) = device::pci_info_extended(device, out);
        nvmlDeviceGetGspFirmwareVersion(device: nvmlDevice_t, out: Out<c_char>) = handle::gpu(device).and_then(|gpu| put_characters(out, &device::firmware_version(&gpu)));
        nvmlDeviceSetComputeMode(device: nvmlDevice_t, mode: nvmlComputeMode_t) = device::set_compute_mode(device, mode);
        nvmlDeviceSetPersistenceMode(device: nvmlDevice_t, mode: nvmlEnableState_t) = device::set_persistence_mode(device, mode);
        nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, _index: c_uint, _out: Out<nvmlDevice_t>) = handle::gpu(device).and(Err(NVML_ERROR_NOT_FOUND.into()));
        nvmlDeviceGetInforomVersion(device: nvmlDevice_t, _object: nvmlInforomObject_t, out: Out<c_char>, length: c_uint) = handle::gpu(device).and_then(|_| put_text(out, length, "2.1"));
        nvmlDeviceGetPcieThroughput(device: nvmlDevice_t, _counter: nvmlPcieUtilCounter_t, out: Out<c_uint>) = value(device, out, |_| Ok(0));
        nvmlDeviceGetTotalEccErrors(device: nvmlDevice_t, _error: nvmlMemoryErrorType_t, _counter: nvmlEccCounterType_t, out: Out<c_ulonglong>) = value(device, out, |_| Ok(0));
        nvmlDeviceGetMemoryErrorCounter(device: nvmlDevice_t, _error: nvmlMemoryErrorType_t, _counter: nvmlEccCounterType_t, _location: nvmlMemoryLocation_t, out: Out<c_ulonglong>) = value(device, out, |_| Ok(0));
        nvmlDeviceGetRetiredPages(device: nvmlDevice_t, _cause: nvmlPageRetirementCause_t, count: Out<c_uint>, out: Out<c_ulonglong>) = process::none(device, count, out);
        nvmlDeviceGetRetiredPages_v2(device: nvmlDevice_t, _cause: nvmlPageRetirementCause_t, count: Out<c_uint>, out: Out<c_ulonglong>, _times: Out<c_ulonglong>) = process::none(device, count, out);
        nvmlDeviceGetRemappedRows(device: nvmlDevice_t, corrected: Out<c_uint>, uncorrected: Out<c_uint>, pending: Out<c_uint>, failed: Out<c_uint>) = pair(device, (corrected, uncorrected), |_| Ok((0, 0))).and_then(|()| pair(device, (pending, failed), |_| Ok((0, 0))));
        nvmlDeviceGetEncoderSessions(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlEncoderSessionInfo_t>) = process::none(device, count, out);
        nvmlDeviceGetFBCSessions(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlFBCSessionInfo_t>) = process::none(device, count, out);
    }

    // Memory and processes.
    other! {
        nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, out: Out<nvmlMemory_v2_t>) = memory::info_v2(device, out);
        nvmlDeviceGetComputeRunningProcesses(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_v1_t>) = process::compute_v1(device, count, out);
        nvmlDeviceGetComputeRunningProcesses_v2(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_v2_t>) = process::compute(device, count, out);
        nvmlDeviceGetComputeRunningProcesses_v3(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_t>) = process::compute(device, count, out);
        nvmlDeviceGetGraphicsRunningProcesses(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_v1_t>) = process::none(device, count, out);
        nvmlDeviceGetGraphicsRunningProcesses_v2(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_v2_t>) = process::none(device, count, out);
        nvmlDeviceGetGraphicsRunningProcesses_v3(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_t>) = process::none(device, count, out);
        nvmlDeviceGetMPSComputeRunningProcesses(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_v1_t>) = process::none(device, count, out);
        nvmlDeviceGetMPSComputeRunningProcesses_v2(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_v2_t>) = process::none(device, count, out);
        nvmlDeviceGetMPSComputeRunningProcesses_v3(device: nvmlDevice_t, count: Out<c_uint>, out: Out<nvmlProcessInfo_t>) = process::none(device, count, out);
        nvmlDeviceGetRunningProcessDetailList(device: nvmlDevice_t, list: Out<nvmlProcessDetailList_t>) = process::details(device, list);
        nvmlDeviceGetProcessUtilization(device: nvmlDevice_t, out: Out<nvmlProcessUtilizationSample_t>, count: Out<c_uint>, last_seen: c_ulonglong) = process::utilisation(device, out, count, last_seen);
        nvmlDeviceGetProcessesUtilizationInfo(device: nvmlDevice_t, info: Out<nvmlProcessesUtilizationInfo_t>) = process::utilisation_info(device, info);
        nvmlDeviceGetSamples(device: nvmlDevice_t, kind: nvmlSamplingType_t, last_seen: c_ulonglong, value_type: Out<nvmlValueType_t>, count: Out<c_uint>, out: Out<nvmlSample_t>) = process::gpu_samples(device, kind, last_seen, value_type, count, out);
        nvmlDeviceGetAccountingPids(device: nvmlDevice_t, count: Out<c_uint>, out: Out<c_uint>) = process::accounting_pids(device, count, out);
        nvmlDeviceGetAccountingStats(device: nvmlDevice_t, pid: c_uint, out: Out<nvmlAccountingStats_t>) = process::accounting(device, pid, out);
        nvmlDeviceGetAccountingStats_v2(device: nvmlDevice_t, out: Out<nvmlAccountingStats_v2_t>) = process::accounting_v2(device, out);
        nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, values: Out<nvmlFieldValue_t>) = field::values(device, count, values);
    }

    // Clocks, power, temperature.
    other! {
        nvmlDeviceGetClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) = clock::current(device, kind, out);
        nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) = clock::maximum(device, kind, out);
        nvmlDeviceGetApplicationsClock(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) = clock::maximum(device, kind, out);
        nvmlDeviceGetDefaultApplicationsClock(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) = clock::maximum(device, kind, out);
        nvmlDeviceGetMaxCustomerBoostClock(device: nvmlDevice_t, kind: nvmlClockType_t, out: Out<c_uint>) = clock::maximum(device, kind, out);
        nvmlDeviceGetClock(device: nvmlDevice_t, kind: nvmlClockType_t, id: nvmlClockId_t, out: Out<c_uint>) = clock::by_id(device, kind, id, out);
        nvmlDeviceGetSupportedMemoryClocks(device: nvmlDevice_t, count: Out<c_uint>, out: Out<c_uint>) = clock::supported_memory(device, count, out);
        nvmlDeviceGetSupportedGraphicsClocks(device: nvmlDevice_t, memory: c_uint, count: Out<c_uint>, out: Out<c_uint>) = clock::supported_graphics(device, memory, count, out);
        nvmlDeviceGetTemperature(device: nvmlDevice_t, sensor: nvmlTemperatureSensors_t, out: Out<c_uint>) = clock::temperature(device, sensor, out);
        nvmlDeviceGetTemperatureV(device: nvmlDevice_t, out: Out<nvmlTemperature_t>) = clock::temperature_value(device, out);
        nvmlDeviceGetTemperatureThreshold(device: nvmlDevice_t, kind: nvmlTemperatureThresholds_t, out: Out<c_uint>) = clock::threshold(device, kind, out);
    }

    // Topology.
    other! {
        nvmlDeviceOnSameBoard(first: nvmlDevice_t, second: nvmlDevice_t, out: Out<c_int>) = topology::on_same_board(first, second, out);
        nvmlDeviceGetTopologyCommonAncestor(first: nvmlDevice_t, second: nvmlDevice_t, out: Out<nvmlGpuTopologyLevel_t>) = topology::common_ancestor(first, second, out);
        nvmlDeviceGetTopologyNearestGpus(device: nvmlDevice_t, level: nvmlGpuTopologyLevel_t, count: Out<c_uint>, out: Out<nvmlDevice_t>) = topology::nearest(device, level, count, out);
        nvmlSystemGetTopologyGpuSet(_cpu: c_uint, count: Out<c_uint>, out: Out<nvmlDevice_t>) = topology::near_cpu(count, out);
        nvmlDeviceGetP2PStatus(first: nvmlDevice_t, second: nvmlDevice_t, _index: nvmlGpuP2PCapsIndex_t, out: Out<nvmlGpuP2PStatus_t>) = topology::peer_status(first, second, out);
        nvmlDeviceGetCpuAffinity(device: nvmlDevice_t, words: c_uint, out: Out<c_ulong>) = topology::cpus(device, words, out);
        nvmlDeviceGetCpuAffinityWithinScope(device: nvmlDevice_t, words: c_uint, out: Out<c_ulong>, _scope: nvmlAffinityScope_t) = topology::cpus(device, words, out);
        nvmlDeviceGetMemoryAffinity(device: nvmlDevice_t, words: c_uint, out: Out<c_ulong>, _scope: nvmlAffinityScope_t) = topology::nodes(device, words, out);
    }

    // Events.
    other! {
        nvmlEventSetCreate(out: Out<nvmlEventSet_t>) = event::create(out);
        nvmlEventSetFree(set: nvmlEventSet_t) = event::free(set);
        nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) = event::register(device, types, set);
        nvmlEventSetWait(set: nvmlEventSet_t, _data: Out<nvmlEventData_t>, timeout: c_uint) = event::wait(set, timeout);
        nvmlEventSetWait_v2(set: nvmlEventSet_t, _data: Out<nvmlEventData_t>, timeout: c_uint) = event::wait(set, timeout);
    }
}
