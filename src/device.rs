//! Devices by name. The only file that knows which ones this build has.
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Stage};

/// A device by its name.
enum Named {
    Cpu,
    Cuda(usize),
}

fn named(name: &str) -> Result<Named> {
    let named = match name.split_once(':') {
        None if name == "cpu" => Named::Cpu,
        None if name == "cuda" => Named::Cuda(0),
        Some(("cuda", index)) if !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()) => {
            Named::Cuda(index.parse().map_err(|_| unknown(name))?)
        }
        _ => return Err(unknown(name)),
    };
    if matches!(named, Named::Cuda(_)) && !cfg!(feature = "cuda") {
        let reason = "this build has no CUDA; build it with `make cuda`, which is `cargo build --release --features cuda` and what that needs";
        return Err(Error::at(Stage::Device, name, reason));
    }
    Ok(named)
}

/// Whether `name` means a device that this build knows. Opens none.
///
/// # Errors
/// What the name should be, or which feature to build with.
pub fn check(name: &str) -> Result<()> {
    named(name).map(|_| ())
}

/// The device called `name`: `cpu`, `cuda:0`, `cuda:1`, …. Without autodiff: training asks for that itself.
///
/// # Errors
/// As [`check`]; or the driver cannot open it.
pub fn parse(name: &str) -> Result<Device> {
    match named(name)? {
        Named::Cpu => Ok(Device::flex()),
        Named::Cuda(index) => cuda(name, index),
    }
}

fn unknown(name: &str) -> Error {
    Error::at(Stage::Device, "", format!("there is no device {name:?}; write `cpu` or `cuda:0`, `cuda:1`, …"))
}

#[cfg(feature = "cuda")]
fn cuda(name: &str, index: usize) -> Result<Device> {
    // Opening a device is what fails where there is none, and it fails by a panic.
    let opened = std::panic::catch_unwind(|| {
        let device = Device::cuda(index);
        device.sync().map(|()| device).map_err(|error| format!("{error:?}"))
    });
    let absent = || Error::at(Stage::Device, name, "the CUDA driver cannot open it; `nvidia-smi` lists what there is");
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(cause)) => Err(absent().caused_by(cause)),
        Err(_) => Err(absent()),
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(name: &str, _index: usize) -> Result<Device> {
    Err(unknown(name))
}

/// What a checkpoint remembers of the machine: the same bits are promised only where all of it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The device's name as the user wrote it.
    pub device: String,
    /// Kind of CPU, with the vector instructions that choose between kernels.
    pub processor: String,
    /// Threads that share the kernels.
    pub threads: usize,
}

/// This machine, as seen by a run on the device called `name`.
pub fn describe(name: &str) -> Machine {
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model_name(&text));
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Machine {
        device: name.to_owned(),
        processor: format!("{model} ({})", vector_instructions()),
        threads: rayon::current_num_threads(),
    }
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn vector_instructions() -> &'static str {
    if is_x86_feature_detected!("avx512f") {
        "avx512"
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        "avx2"
    } else {
        "sse2"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_instructions() -> &'static str {
    std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_always_there_and_without_autodiff() {
        assert!(!parse("cpu").expect("cpu").is_autodiff());
    }

    #[test]
    fn unknown_devices_are_errors_with_a_remedy() {
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:99999999999999999999999", ""] {
            let error = parse(name).expect_err(name).to_string();
            assert!(error.starts_with("device: ") && error.contains("`cuda:0`"), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_the_build_lacks_names_the_feature() {
        let error = parse("cuda:0").expect_err("no CUDA here").to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }

    #[test]
    fn machine_is_the_same_when_asked_twice_and_survives_json() {
        let machine = describe("cpu");
        assert_eq!(machine, describe("cpu"));
        assert!(machine.threads >= 1);
        let text = serde_json::to_string(&machine).expect("plain data");
        assert_eq!(serde_json::from_str::<Machine>(&text).expect("the same"), machine);
        assert_eq!(model_name("processor: 0\nmodel name\t: Fast CPU\n").as_deref(), Some("Fast CPU"));
    }
}
