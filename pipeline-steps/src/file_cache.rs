//! Files of prompts, read once.
//!
//! Owns [`FileCache`]: what was read is kept under (path, length, modification time in nanoseconds, inode), bounded by
//! weight, and many readers of one file share one read. Must not know prompts or who may read what: callers hand in a
//! directory handle that confines them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::Dir;
use moka::future::Cache;
use pipeline_core::clock::{Clock, SystemClock};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// Most bytes that are kept, and the largest file that is read.
const CAPACITY: u64 = 64 * 1024 * 1024;

/// How old a modification time must be for the file's content to follow from it. File systems stamp times in steps
/// (some milliseconds on ext4, two seconds on FAT), so that two writes within one step look the same.
const SETTLED_NS: i128 = 2_000_000_000;

/// Content of files by their identity. One value per process is right: it holds no state of a run.
pub struct FileCache {
    entries: Cache<Key, Arc<Entry>>,
    reads: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    path: PathBuf,
    length: u64,
    modified_ns: i128,
    device: u64,
    inode: u64,
}

impl Key {
    fn of(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self {
            path: path.to_path_buf(),
            length: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// One read and what came of it.
struct Entry {
    content: Result<Arc<[u8]>, (io::ErrorKind, String)>,
    begun: Instant,
    /// The content follows from the key, for ever.
    is_settled: bool,
}

impl Entry {
    /// Whether a request that arrived at `asked` may use it. When the key does not determine the content, only a read
    /// that began after the request is sure to have seen every write before the request.
    fn serves(&self, asked: Instant) -> bool {
        self.is_settled || self.begun > asked
    }
}

impl Default for FileCache {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl FileCache {
    /// An empty cache. `clock` says how old a modification time is.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let weigh = |key: &Key, entry: &Arc<Entry>| {
            let bytes = entry.content.as_ref().map_or(0, |c| c.len()) + key.path.as_os_str().len() + 256;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder().max_capacity(CAPACITY).weigher(weigh).build();
        Self { entries, reads: AtomicU64::new(0), clock }
    }

    /// How often a file was read from the disk.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// The content of the regular file `relative` below `dir`. `absolute` is the same file's full path, its name here.
    ///
    /// What is returned was the file's content at some moment between the call and its return, unless the file is
    /// written in place just then: then it may be mixed, as with every reader. The content is shared, not copied.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` without a number of the system when the path would leave `dir`; `InvalidInput`
    /// when it is not a regular file; `FileTooLarge` over 64 MiB.
    pub async fn read(&self, dir: &Dir, relative: &Path, absolute: &Path) -> io::Result<Arc<[u8]>> {
        let asked = Instant::now();
        // Before it is opened: opening a named pipe would wait for its writer.
        if !dir.metadata(relative)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        loop {
            let file = dir.open(relative)?.into_std();
            let metadata = file.metadata()?;
            if metadata.len() > CAPACITY {
                let message = format!("it has {} bytes, and at most {CAPACITY} are read", metadata.len());
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            let key = Key::of(absolute, &metadata);
            let found = self
                .entries
                .entry_by_ref(&key)
                .or_insert_with_if(self.load(file, &key), |entry| !entry.serves(asked))
                .await
                .into_value();
            // A read that was under way already is joined, but may be too old: then the next one is not.
            if found.serves(asked) {
                return found.content.clone().map_err(|(kind, message)| io::Error::new(kind, message));
            }
            tokio::task::yield_now().await;
        }
    }

    async fn load(&self, file: std::fs::File, key: &Key) -> Arc<Entry> {
        let begun = Instant::now();
        let now_ns = i128::from(self.clock.now().0) * 1_000_000;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let content = slurp(file).await;
        let is_settled = match &content {
            Ok((_, after)) => Key::of(&key.path, after) == *key && now_ns - key.modified_ns >= SETTLED_NS,
            // An error is shared by those who wait for it, and not kept for those who come later.
            Err(_) => false,
        };
        let content = content.map(|(bytes, _)| bytes.into()).map_err(|e| (e.kind(), e.to_string()));
        Arc::new(Entry { content, begun, is_settled })
    }
}

/// Everything in `file`, and its metadata after that.
async fn slurp(file: std::fs::File) -> io::Result<(Vec<u8>, std::fs::Metadata)> {
    let mut file = tokio::fs::File::from_std(file);
    let mut bytes = Vec::new();
    // It may have grown since it was looked at.
    (&mut file).take(CAPACITY + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > CAPACITY {
        let message = format!("it grew over the {CAPACITY} bytes that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let after = file.metadata().await?;
    Ok((bytes, after))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use std::time::{Duration, UNIX_EPOCH};

    use futures_util::future::join_all;

    use super::*;
    use crate::fixture::Fixture;

    fn settle(path: &Path, seconds: u64) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    async fn text(cache: &FileCache, fx: &Fixture, name: &str) -> String {
        let bytes = cache.read(&fx.dir(), Path::new(name), &fx.path(name)).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn n09_a_hundred_first_readers_share_one_disk_read() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        std::fs::write(fx.path("a.txt"), "shared").unwrap();
        settle(&fx.path("a.txt"), 1_000_000);
        let all = join_all((0..100).map(|_| text(&cache, &fx, "a.txt"))).await;
        assert_eq!(all, vec!["shared"; 100]);
        assert_eq!(cache.reads(), 1);
    }

    #[tokio::test]
    async fn n09_a_reader_that_is_dropped_takes_nothing_from_the_others() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        std::fs::write(fx.path("a.txt"), "shared").unwrap();
        settle(&fx.path("a.txt"), 1_000_000);
        let mut first = Box::pin(text(&cache, &fx, "a.txt"));
        assert!(futures_util::poll!(&mut first).is_pending(), "the read is under way");
        let mut second = Box::pin(text(&cache, &fx, "a.txt"));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await, "shared");
        let before = cache.reads();
        assert_eq!(text(&cache, &fx, "a.txt").await, "shared");
        assert_eq!(cache.reads(), before, "what the second read is kept");
    }

    #[tokio::test]
    async fn x04_a_rewrite_in_place_of_the_same_length_and_time_is_seen() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        for round in 0..200 {
            let content = format!("{round:04}");
            std::fs::write(fx.path("a.txt"), &content).unwrap();
            assert_eq!(text(&cache, &fx, "a.txt").await, content);
        }
    }

    #[tokio::test]
    async fn x04_a_rewrite_by_rename_with_the_same_time_is_seen() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        for content in ["one", "two", "six"] {
            std::fs::write(fx.path("b.txt"), content).unwrap();
            settle(&fx.path("b.txt"), 1_000_000);
            std::fs::rename(fx.path("b.txt"), fx.path("a.txt")).unwrap();
            assert_eq!(text(&cache, &fx, "a.txt").await, content);
        }
    }

    #[tokio::test]
    async fn x04_a_rewrite_one_nanosecond_later_is_seen() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        for (nanos, content) in [(1, "one"), (2, "two")] {
            std::fs::write(fx.path("a.txt"), content).unwrap();
            let file = std::fs::File::options().write(true).open(fx.path("a.txt")).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::new(1_000_000, nanos)).unwrap();
            assert_eq!(text(&cache, &fx, "a.txt").await, content);
            assert_eq!(text(&cache, &fx, "a.txt").await, content);
        }
        assert_eq!(cache.reads(), 2, "each state is read once");
    }

    #[tokio::test]
    async fn what_is_no_regular_file_or_leaves_the_directory_is_an_error() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        std::fs::create_dir(fx.path("d")).unwrap();
        let of = |name: &'static str| {
            let (cache, fx) = (&cache, &fx);
            async move { cache.read(&fx.dir(), Path::new(name), &fx.path(name)).await.unwrap_err() }
        };
        assert_eq!(of("d").await.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(of("none").await.kind(), io::ErrorKind::NotFound);
        assert_eq!(of("../outside").await.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(cache.reads(), 0);
    }

    #[tokio::test]
    async fn a_file_over_the_limit_is_refused_without_reading_it() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        std::fs::File::create(fx.path("big")).unwrap().set_len(CAPACITY + 1).unwrap();
        let error = cache.read(&fx.dir(), Path::new("big"), &fx.path("big")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(cache.reads(), 0);
    }
}
