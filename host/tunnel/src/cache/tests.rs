use super::*;

fn open_cache(folder: &tempfile::TempDir, max_bytes: u64) -> Arc<TensorCache> {
    Arc::new(TensorCache::new(folder.path().join("tensors"), max_bytes).unwrap())
}

/// Stores `data`. Returns its digest, or `None` if the cache has no room.
fn put(cache: &Arc<TensorCache>, data: &[u8]) -> Option<TensorDigest> {
    let mut writer = cache.begin(data.len() as u64)?;
    data.chunks(3).for_each(|part| writer.write(part));
    writer.finish();
    Some(Sha256::digest(data).into())
}

/// The data of a valid tensor.
fn get(cache: &TensorCache, digest: &TensorDigest) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let is_valid = cache.read(cache.open(digest)?, |part| {
        data.extend(part);
        true
    });
    is_valid.then_some(data)
}

fn file_bytes(cache: &TensorCache) -> u64 {
    fs::read_dir(&cache.folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn cache_keeps_unchanged_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open_cache(&folder, 3 << 20);
    let large = vec![5; usize::try_from(2 * MAX_PART_BYTES + 1).unwrap()];
    for data in [b"first".as_slice(), &large] {
        let digest = put(&cache, data).unwrap();
        assert_eq!(get(&cache, &digest).as_deref(), Some(data));
        assert!(open_cache(&folder, 3 << 20).list().digests.contains(&digest), "after a restart");
        for changed in [b"other".as_slice(), b"fir", b"a longer text"] {
            fs::write(cache.path(&digest), changed).unwrap();
            assert_eq!(get(&cache, &digest), None);
            assert!(!cache.path(&digest).exists());
        }
    }
    assert_eq!((cache.bytes(), cache.list().digests.len()), (0, 0));
}

#[test]
fn writes_stay_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open_cache(&folder, 12);
    let [first, second] = [b"12345", b"67890"].map(|data| put(&cache, data).unwrap());
    get(&cache, &first).unwrap();
    // Incomplete tensors count too.
    let mut writer = cache.begin(5).unwrap();
    assert!(cache.open(&second).is_none(), "the least recently used tensor makes room");
    writer.write(b"abc");
    assert!(cache.begin(8).is_none() && file_bytes(&cache) <= 12);
    assert!(put(&cache, &[0; 13]).is_none() && cache.bytes() == 5, "a tensor larger than the cache");
    drop(writer);
    assert_eq!((cache.bytes(), file_bytes(&cache)), (5, 5), "an abandoned tensor leaves nothing");
    put(&cache, b"123456789").unwrap();
    assert_eq!((cache.bytes(), open_cache(&folder, 4).bytes()), (9, 0), "a lower limit at the next start");
}

#[test]
fn listed_tensors_are_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open_cache(&folder, 10);
    let listed = put(&cache, b"1234567").unwrap();
    let listing = cache.list();
    assert!(put(&cache, b"abcdefg").is_none());
    assert!(cache.open(&listed).is_some());
    drop(listing);
    assert!(put(&cache, b"abcdefg").is_some() && cache.open(&listed).is_none());
}

#[test]
fn missing_file_updates_the_listing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open_cache(&folder, 100);
    let digests = [b"abc", b"def", b"ghi"].map(|data| put(&cache, data).unwrap());
    digests[..2].iter().for_each(|digest| fs::remove_file(cache.path(digest)).unwrap());
    assert!(cache.open(&digests[0]).is_none());
    assert_eq!((&cache.list().digests[..], cache.bytes()), (&digests[2..], 3));
}

#[test]
fn start_removes_incomplete_files_without_a_writer() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open_cache(&folder, 100);
    let mut writer = cache.begin(4).unwrap();
    let leftover = cache.folder.join("77.0.part");
    fs::write(&leftover, b"half").unwrap();
    drop(open_cache(&folder, 100));
    assert!(!leftover.exists() && writer.path.exists());
    writer.write(b"abcd");
    writer.finish();
    assert_eq!(cache.bytes(), 4);
}

#[test]
fn concurrent_writes_of_one_tensor_leave_a_complete_file() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open_cache(&folder, 1 << 20);
    let data = vec![7; 10_000];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let digest = put(&cache, &data).unwrap();
                    assert!(get(&cache, &digest).is_some_and(|cached| cached == data));
                }
            });
        }
    });
    assert_eq!((fs::read_dir(&cache.folder).unwrap().count(), cache.bytes()), (1, 10_000));
}
