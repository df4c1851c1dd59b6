//! Devices by name. The only file that asks which features were built.
use burn::tensor::Device;

use crate::error::{Error, Result, Stage};

/// A device that a pipeline may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `cpu`: Burn's flex backend.
    Cpu,
    /// `cuda:N`.
    Cuda(usize),
}

/// Why a name means no device of this build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// What is wrong.
    pub problem: String,
    /// What to write or build instead.
    pub remedy: String,
}

/// What `name` means; opens nothing.
///
/// # Errors
/// The name is no device, or this build lacks it.
pub fn check(name: &str) -> Result<Named, Unusable> {
    let named = match name.split_once(':') {
        None if name == "cpu" => Named::Cpu,
        None if name == "cuda" => Named::Cuda(0),
        Some(("cuda", index)) if index.parse::<usize>().is_ok() => Named::Cuda(index.parse().unwrap_or(0)),
        _ => {
            let problem = format!("there is no device {name:?}");
            return Err(Unusable { problem, remedy: "cpu, or cuda:0 for the first GPU".into() });
        }
    };
    if named != Named::Cpu && !cfg!(feature = "cuda") {
        let problem = format!("this binary was built without {name:?}");
        let remedy = "build it with `make cuda` (cargo build --release --features cuda), or take device = \"cpu\"";
        return Err(Unusable { problem, remedy: remedy.into() });
    }
    Ok(named)
}

/// Opens the device that `name` means, without gradients.
///
/// # Errors
/// As [`check`], or the driver has no such device.
pub fn open(name: &str) -> Result<Device> {
    let fail = |reason: String| Error::at(Stage::Device, name, reason);
    match check(name).map_err(|unusable| fail(format!("{}; {}", unusable.problem, unusable.remedy)))? {
        Named::Cpu => Ok(Device::flex()),
        Named::Cuda(index) => cuda(index).ok_or_else(|| fail("the driver has no such device; `nvidia-smi` lists them".into())),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Option<Device> {
    // Burn panics where there is no driver or no such device, on first use.
    std::panic::catch_unwind(|| {
        let device = Device::cuda(index);
        device.sync().is_ok().then_some(device)
    })
    .ok()
    .flatten()
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Option<Device> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_devices_or_told_what_is() {
        assert_eq!(check("cpu"), Ok(Named::Cpu));
        for name in ["gpu", "cuda:", "cuda:x", "cpu:0", ""] {
            assert!(check(name).unwrap_err().remedy.contains("cpu"), "{name}");
        }
    }

    #[test]
    fn a_device_of_another_build_names_the_feature() {
        if cfg!(feature = "cuda") {
            assert_eq!(check("cuda:1"), Ok(Named::Cuda(1)));
        } else {
            assert!(check("cuda:0").unwrap_err().remedy.contains("--features cuda"));
            assert_eq!(open("cuda:0").unwrap_err().exit_code(), 1);
        }
    }
}
