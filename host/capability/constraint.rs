//! Constraints by name: what asks something of the host, and what a capability declares.

use serde_json::Value;

use super::{Capability, Constraint};

impl Constraint {
    /// True if it asks for something that a host has or has not, false if it limits what the worker
    /// itself may use. An operator can relax the former, one by one.
    pub const fn is_placement(self) -> bool {
        matches!(
            self,
            Self::MinMemoryMb
                | Self::DiskType
                | Self::GpuCount
                | Self::GpuMemoryMb
                | Self::GpuType
                | Self::EnvProfile
        )
    }

    /// What a capability declares, as JSON.
    pub fn declared(self, capability: &Capability) -> Option<Value> {
        let given = capability.constraints.as_ref();
        let number = match self {
            Self::EnvProfile => return capability.env_profile.map(|word| word.as_str().into()),
            Self::DiskType => return given?.disk_type.map(|word| word.as_str().into()),
            Self::GpuType => return given?.gpu_type.map(|word| word.as_str().into()),
            Self::MinMemoryMb => given?.min_memory_mb,
            Self::MaxMemoryMb => given?.max_memory_mb,
            Self::CpuShares => given?.cpu_shares,
            Self::MaxCpuMs => given?.max_cpu_ms,
            Self::TmpStorageMb => given?.tmp_storage_mb,
            Self::DiskStorageGb => given?.disk_storage_gb,
            Self::NetworkBandwidthMbps => given?.network_bandwidth_mbps,
            Self::ModelStorageMb => given?.model_storage_mb,
            Self::VectorIndexMb => given?.vector_index_mb,
            Self::GpuCount => given?.gpu_count,
            Self::GpuMemoryMb => given?.gpu_memory_mb,
        };
        number.map(Value::from)
    }
}
