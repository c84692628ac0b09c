//! Takes the maps out of what was loaded, each in the form in which it is used.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf, Pod,
    maps::{ArrayOfMaps, Map, MapData, MapError},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH;
use collector_ebpf::abi::flow::TableCounts;

use super::{error::KernelError, memory::SharedArray, perf::PerfMap};

/// Takes a map out whose entries are read and written in other ways than one by one.
pub(super) fn data(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, KernelError> {
    match take(ebpf, name)? {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::ArrayOfMaps(data) => Ok(data),
        _ => Err(KernelError::Missing { what: "map of the kind expected", name }),
    }
}

/// Takes a map out as one of its kind.
pub(super) fn typed<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    take(ebpf, name)?.try_into().map_err(|source| KernelError::Map { map: name, action: "opened", source })
}

/// Takes a map of perf buffers out, and that of the events which wake the reader of these at each record, if there is one.
pub(super) fn perf(
    ebpf: &mut Ebpf,
    name: &'static str,
    waking: Option<&'static str>,
) -> Result<PerfMap, KernelError> {
    let mut descriptor = |name| {
        let map = take(ebpf, name)?;
        let Map::PerfEventArray(data) = &map else {
            return Err(KernelError::Missing { what: "map of the kind expected", name });
        };
        let descriptor = data.fd().as_fd().try_clone_to_owned();
        let fail = |source| KernelError::Call { map: name, action: "opened", source };
        Ok((descriptor.map_err(fail)?, map))
    };
    let waking = waking.map(&mut descriptor).transpose()?.map(|(waking, _)| waking);
    let (descriptor, map) = descriptor(name)?;
    let map = map.try_into().map_err(|source| KernelError::Map { map: name, action: "opened", source })?;
    Ok(PerfMap::new(map, descriptor, name, waking))
}

/// Takes a map of maps out.
pub(super) fn outer(ebpf: &mut Ebpf, name: &'static str) -> Result<ArrayOfMaps<MapData>, KernelError> {
    typed(ebpf, name)
}

/// Takes an array out that is read and written through memory.
pub(super) fn shared<T: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    entries: u32,
) -> Result<SharedArray<T>, KernelError> {
    mapped(&data(ebpf, name)?, name, entries)
}

/// The memory of an array.
pub(super) fn mapped<T: Pod>(
    map: &MapData,
    name: &'static str,
    entries: u32,
) -> Result<SharedArray<T>, KernelError> {
    SharedArray::map(map.fd(), entries).map_err(|source| KernelError::Call {
        map: name,
        action: "mapped into memory",
        source,
    })
}

/// Creates one table an epoch and puts both into the outer map.
pub(super) fn tables<K>(
    outer: &mut ArrayOfMaps<MapData>,
    name: &'static str,
    entries: u32,
) -> Result<[MapData; 2], KernelError> {
    let fail = |action| move |source| KernelError::Map { map: name, action, source };
    let create = || {
        let (key, value) = (size_of::<K>() as u32, size_of::<TableCounts>() as u32);
        let map = aya_obj::Map::new_from_params(BPF_MAP_TYPE_HASH as u32, key, value, entries, 0);
        MapData::create(map, name, None).map_err(fail("created"))
    };
    let tables = [create()?, create()?];
    for (epoch, table) in tables.iter().enumerate() {
        outer.set(epoch as u32, table, 0).map_err(fail("filled"))?;
    }
    Ok(tables)
}

/// Takes a map out, of whatever kind.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing { what: "map", name })
}
