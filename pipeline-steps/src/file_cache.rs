//! Files of prompts, read once.
//!
//! Owns [`FileCache`]: what was read is kept under (path, length, inode, times of modification and change in
//! nanoseconds), bounded by weight, and many readers of one file share one read. Must not know prompts or who may read what: callers hand in a
//! directory handle that confines them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::Dir;
use moka::future::Cache;
use pipeline_core::clock::{Clock, SystemClock};
use tokio::io::AsyncReadExt;

use crate::confine::open_regular;

/// Most bytes that are kept, and the largest file that is read.
const CAPACITY: u64 = 64 * 1024 * 1024;

/// How old a file's last change must be for its content to follow from its times. File systems stamp times in steps
/// (some milliseconds on ext4, two seconds on FAT), so that two writes within one step look the same.
const SETTLED_NS: i128 = 2_000_000_000;

/// Content of files by their identity. One value per process is right: it holds no state of a run.
pub struct FileCache {
    entries: Cache<Key, Arc<Entry>>,
    reads: AtomicU64,
    /// Orders requests and reads. A counter, because two instants may be equal.
    order: AtomicU64,
    clock: Arc<dyn Clock>,
}

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    path: PathBuf,
    length: u64,
    modified_ns: i128,
    /// Time of the last change of the inode. Unlike the modification time nobody can set it, and inode numbers are
    /// given out again: a file that replaces another of the same length and (set) time differs only here.
    changed_ns: i128,
    device: u64,
    inode: u64,
}

impl Key {
    fn of(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self { path: path.to_path_buf(), ..Self::stamp(metadata) }
    }

    #[cfg(unix)]
    fn stamp(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            path: PathBuf::new(),
            length: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Here a file that another one of the same length and time replaces cannot be told from it.
    #[cfg(not(unix))]
    fn stamp(metadata: &std::fs::Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let modified_ns = since.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(i128::MAX));
        let (path, length) = (PathBuf::new(), metadata.len());
        Self { path, length, modified_ns, changed_ns: modified_ns, device: 0, inode: 0 }
    }
}

/// One read and what came of it.
struct Entry {
    content: Result<Arc<[u8]>, (io::ErrorKind, String)>,
    /// Its place in the order of requests and reads.
    begun: u64,
    /// The content follows from the key, for ever.
    is_settled: bool,
}

impl Entry {
    /// Whether a request that arrived at `asked` may use it. When the key does not determine the content, only a read
    /// that began after the request is sure to have seen every write before the request.
    fn serves(&self, asked: u64) -> bool {
        self.is_settled || self.begun > asked
    }
}

impl Default for FileCache {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl FileCache {
    /// An empty cache. `clock` says how long ago a file was changed.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let weigh = |key: &Key, entry: &Arc<Entry>| {
            let bytes = entry.content.as_ref().map_or(0, |c| c.len()) + key.path.as_os_str().len() + 256;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder().max_capacity(CAPACITY).weigher(weigh).build();
        Self { entries, reads: AtomicU64::new(0), order: AtomicU64::new(0), clock }
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
        let asked = self.order.fetch_add(1, Ordering::SeqCst);
        loop {
            let file = open_regular(dir, relative)?;
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
        let begun = self.order.fetch_add(1, Ordering::SeqCst);
        let now_ns = i128::from(self.clock.now().0) * 1_000_000;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let content = slurp(file).await;
        let is_settled = match &content {
            Ok((_, after)) => {
                let last = key.modified_ns.max(key.changed_ns);
                Key::of(&key.path, after) == *key && now_ns - last >= SETTLED_NS
            }
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
    use pipeline_core::clock::Timestamp;

    use super::*;
    use crate::fixture::Fixture;

    /// A clock for which every file of a test is long settled.
    struct Later;

    impl Clock for Later {
        fn now(&self) -> Timestamp {
            Timestamp(SystemClock.now().0 + 60_000)
        }
    }

    fn later() -> FileCache {
        FileCache::new(Arc::new(Later))
    }

    fn set_modified(path: &Path, nanoseconds: u32) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(1_000_000, nanoseconds)).unwrap();
    }

    async fn text(cache: &FileCache, fx: &Fixture, name: &str) -> String {
        let bytes = cache.read(&fx.dir(), Path::new(name), &fx.path(name)).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Naive: each looks whether the file is in the cache, and all read it.
    /// Figure: 100 first readers, 1 read.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn n09_a_hundred_first_readers_share_one_disk_read() {
        let fx = Fixture::new();
        let cache = later();
        std::fs::write(fx.path("a.txt"), "shared").unwrap();
        let all = join_all((0..100).map(|_| text(&cache, &fx, "a.txt"))).await;
        assert_eq!(all, vec!["shared"; 100]);
        assert_eq!(cache.reads(), 1);
    }

    /// Runs `work` while every read stays under way, until it drops what it is given: the only thread for files is
    /// held by a pipe that nobody writes.
    fn with_reads_held<F: Future<Output = ()>>(fx: &Fixture, work: impl FnOnce(std::fs::File) -> F) {
        let pipe = fx.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // Opened for both, so that opening does not wait, and reading does.
        let both = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        let mut held = tokio::fs::File::from_std(both.try_clone().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let mut byte = [0];
            let mut holding = Box::pin(held.read(&mut byte));
            assert!(futures_util::poll!(&mut holding).is_pending());
            work(both).await;
        });
    }

    fn release(mut held: std::fs::File) {
        io::Write::write_all(&mut held, b"x").unwrap();
    }

    /// Naive: a file that may still change is read anew by each of a hundred who wait for it.
    /// Figure: 100 readers, 2 reads.
    #[test]
    fn n09_a_file_of_just_now_is_shared_by_those_who_wait_together() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        std::fs::write(fx.path("a.txt"), "shared").unwrap();
        with_reads_held(&fx, |held| async {
            let mut all = Box::pin(join_all((0..100).map(|_| text(&cache, &fx, "a.txt"))));
            assert!(futures_util::poll!(&mut all).is_pending());
            release(held);
            assert_eq!(all.await, vec!["shared"; 100]);
        });
        assert_eq!(cache.reads(), 2, "the one under way, and one that began after the last request");
    }

    /// Naive: the read belongs to whoever came first, and ends with it.
    #[test]
    fn n09_a_reader_that_is_dropped_takes_nothing_from_the_others() {
        let fx = Fixture::new();
        let cache = later();
        std::fs::write(fx.path("a.txt"), "shared").unwrap();
        with_reads_held(&fx, |held| async {
            let mut first = Box::pin(text(&cache, &fx, "a.txt"));
            assert!(futures_util::poll!(&mut first).is_pending());
            let mut second = Box::pin(text(&cache, &fx, "a.txt"));
            assert!(futures_util::poll!(&mut second).is_pending());
            drop(first);
            release(held);
            assert_eq!(second.await, "shared");
            assert_eq!(cache.reads(), 2, "the dropped one and its successor");
            assert_eq!(text(&cache, &fx, "a.txt").await, "shared");
            assert_eq!(cache.reads(), 2, "what the second one read is kept");
        });
    }

    /// Naive: whoever finds a read under way takes its answer, also when the file has changed since it began.
    #[test]
    fn x04_a_request_does_not_take_the_answer_of_a_read_that_began_before_it() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        std::fs::write(fx.path("a.txt"), "old").unwrap();
        with_reads_held(&fx, |held| async {
            let mut first = Box::pin(text(&cache, &fx, "a.txt"));
            assert!(futures_util::poll!(&mut first).is_pending());
            std::fs::write(fx.path("a.txt"), "new").unwrap();
            let mut second = Box::pin(text(&cache, &fx, "a.txt"));
            assert!(futures_util::poll!(&mut second).is_pending());
            release(held);
            let (_, second) = tokio::join!(first, second);
            assert_eq!(second, "new");
        });
    }

    /// Naive: the key is the time in whole seconds, so that quick rewrites are not seen.
    /// Figure: 200 rewrites as quick as they come.
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

    /// Naive: the key is time and length; a file that is renamed into the place of another may have both.
    #[tokio::test]
    async fn x04_a_rewrite_by_rename_with_the_same_time_is_seen() {
        let fx = Fixture::new();
        let cache = FileCache::default();
        for round in 0..50 {
            let content = format!("{round:04}");
            std::fs::write(fx.path("b.txt"), &content).unwrap();
            set_modified(&fx.path("b.txt"), 0);
            std::fs::rename(fx.path("b.txt"), fx.path("a.txt")).unwrap();
            assert_eq!(text(&cache, &fx, "a.txt").await, content);
        }
    }

    /// Naive: the key has no part below a second; or nothing is kept at all.
    #[tokio::test]
    async fn x04_a_settled_file_is_read_once_and_a_nanosecond_later_again() {
        let fx = Fixture::new();
        let cache = later();
        for (nanoseconds, content) in [(1, "one"), (2, "two")] {
            std::fs::write(fx.path("a.txt"), content).unwrap();
            set_modified(&fx.path("a.txt"), nanoseconds);
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
        let pipe = fx.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let of = |name: &'static str| {
            let (cache, fx) = (&cache, &fx);
            async move { cache.read(&fx.dir(), Path::new(name), &fx.path(name)).await.unwrap_err() }
        };
        assert_eq!(of("d").await.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(of("pipe").await.kind(), io::ErrorKind::InvalidInput, "and nobody waits for its writer");
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
