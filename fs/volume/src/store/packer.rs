//! Collecting frames into packs, and writing them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_crypto::{Cipher, Suite};
use fs_format::manifest::{PACK_PAGE_ENTRIES, PackEntry, PackPage, PackTable, PagePtr};
use fs_format::pack::{self, Codec, DirectoryEntry, FrameName, PACK_TRAILER_BYTES, PackHeader, PackKind};
use fs_format::tree::{Location, Node, NodePtr};
use fs_format::{ChunkId, NodeId, PackId, PackNumber, Seq};

use super::{Store, TAG_BYTES, UNNAMED, disk_error, pack_path};
use crate::buffer::Growing;
use crate::manifests::Unwritten;
use crate::types::SealInfo;
use crate::{FsError, replace};

/// Collects frames into packs and writes them; one for a seal.
///
/// Nothing that it wrote counts until a manifest names it, and nothing has the name of a pack until just before that.
pub struct Packer<'a> {
    store: &'a Store,
    suite: Suite,
    /// The table that the new packs are added to.
    table: PackTable,
    first: u32,
    entries: Vec<Option<PackEntry>>,
    data: Option<OpenWriter>,
    meta: Option<OpenWriter>,
    moved: Option<OpenWriter>,
    /// Those that were used before: one for this thread, and one for each that compresses beside it.
    compressors: Vec<FrameCompressor>,
    /// The branches that were added: a few hundredths of all nodes.
    branches: HashMap<NodeId, Arc<Node>>,
    /// Packs that are written, and that no manifest names.
    unnamed: Vec<Unnamed>,
    /// Whether there is a list of them.
    is_listed: bool,
    /// Room of packs that are written, for those to come.
    room: Vec<Growing>,
    birth: Seq,
    added: u64,
    /// Whether its packs may be sent before a manifest names them.
    is_early: bool,
}

/// A pack that is durable, but not under its name.
struct Unnamed {
    /// Where it lies.
    path: String,
    object: PackId,
}

struct OpenWriter {
    number: u32,
    cipher: Cipher,
    header: PackHeader,
    bytes: Growing,
    directory: Vec<DirectoryEntry>,
}

impl OpenWriter {
    /// Whether one more frame leaves the pack, with its directory, within its target.
    fn has_room_for(&self, payload: usize) -> bool {
        let frame = FRAME_HEAD_BYTES_MAX + payload + TAG_BYTES;
        let directory = (self.directory.len() + 1) * DIRECTORY_ENTRY_BYTES_MAX;
        self.bytes.len() + frame + directory + PACK_END_BYTES <= PACK_BYTES_TARGET
    }
}

/// The most bytes of a pack, but for pages of the pack table.
///
/// Larger hides the cost of a request to a store, smaller shortens a lazy read on a slow line. A little more than 16 MiB
/// would be padded by half a MiB; so a pack ends before the frame that does not fit, and is padded by less than that frame.
const PACK_BYTES_TARGET: usize = 16 << 20;
/// Room for a pack, and for pages behind it.
const PACK_ROOM_BYTES: usize = PACK_BYTES_TARGET + (1 << 20);
/// What stands before a frame's payload: the codec and the plain length.
const FRAME_HEAD_BYTES_MAX: usize = 4;
/// A kind, a node's name and a length.
const DIRECTORY_ENTRY_BYTES_MAX: usize = 1 + 32 + 3;
/// What comes with every directory: the count, a tag, the trailer.
const PACK_END_BYTES: usize = 3 + TAG_BYTES + PACK_TRAILER_BYTES;
/// What a compressed payload must save to be kept: one part in this many.
const COMPRESSION_GAIN_MIN: usize = 32;

/// What a thread compresses at least, in bytes: some milliseconds, beside which its start is nothing.
const COMPRESS_BYTES_MIN: usize = 1 << 20;
/// Threads that compress for one seal at most: all of them wait for the one that puts frames together.
const COMPRESS_THREADS_MAX: usize = 4;

fn compress_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(COMPRESS_THREADS_MAX)
}

/// Compresses payloads of frames, one behind the other.
struct FrameCompressor {
    compressor: zstd::bulk::Compressor<'static>,
    one: Vec<u8>,
    /// All that are worth it; the others end where they begin.
    bytes: Vec<u8>,
    /// Which frames, by their places among those to compress, and where each ends.
    ends: Vec<(usize, usize)>,
}

impl FrameCompressor {
    fn new() -> Result<Self, FsError> {
        let compressor = zstd::bulk::Compressor::new(1)
            .map_err(|error| FsError::Disk(format!("zstd does not start: {error}")))?;
        Ok(Self { compressor, one: Vec::new(), bytes: Vec::new(), ends: Vec::new() })
    }

    /// Compresses, in place of those before, frames that nobody else has begun with.
    fn compress<T>(&mut self, frames: &[(T, &[u8])], begun: &AtomicUsize) -> Result<(), FsError> {
        self.bytes.clear();
        self.ends.clear();
        loop {
            let at = begun.fetch_add(1, Ordering::Relaxed);
            let Some((_, plain)) = frames.get(at) else { return Ok(()) };
            self.one.clear();
            self.one.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            self.compressor
                .compress_to_buffer(plain, &mut self.one)
                .map_err(|error| FsError::Disk(format!("zstd does not compress: {error}")))?;
            if self.one.len() + plain.len() / COMPRESSION_GAIN_MIN + 8 < plain.len() {
                self.bytes.extend_from_slice(&self.one);
            }
            self.ends.push((at, self.bytes.len()));
        }
    }

    /// Places of frames, with their payloads; `None` for what is not worth it.
    fn frames(&self) -> impl Iterator<Item = (usize, Option<&[u8]>)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, &(at, end))| (at, (start < end).then(|| &self.bytes[start..end])))
    }
}

/// Threads that compress for a packer, which takes what came of it.
pub struct Compressors(Vec<FrameCompressor>);

impl Compressors {
    /// Compresses chunks, while this thread does something else first.
    pub fn compress<R>(
        &mut self,
        chunks: &[(ChunkId, &[u8])],
        meanwhile: impl FnOnce() -> R,
    ) -> (Result<(), FsError>, R) {
        let bytes = chunks.iter().map(|(_, plain)| plain.len()).sum::<usize>();
        let begun = &AtomicUsize::new(0);
        let (ours, others) = self.0.split_first_mut().expect("there is one for this thread");
        // As many as there are cores: meanwhile this thread waits for the disk most of the time.
        let threads = (bytes / COMPRESS_BYTES_MIN).min(others.len());
        let (others, unused) = others.split_at_mut(threads);
        unused.iter_mut().for_each(|compressor| compressor.ends.clear());
        std::thread::scope(|scope| {
            let compress = |one: &mut FrameCompressor| one.compress(chunks, begun);
            let others: Vec<_> = others.iter_mut().map(|one| scope.spawn(move || compress(one))).collect();
            let done = meanwhile();
            let ours = compress(ours);
            let compressed = others.into_iter().fold(ours, |all, one| {
                all.and(one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            });
            (compressed, done)
        })
    }
}

impl<'a> Packer<'a> {
    /// A packer for the seal `birth`.
    pub fn new(store: &'a Store, birth: Seq) -> Result<Self, FsError> {
        store.packed.store(0, Ordering::Relaxed);
        // Once for all: whoever looks at other moments meanwhile may teach the store a newer table.
        let table = store.table();
        let first = u32::try_from(table.count()).map_err(|_| FsError::NoSpace)?;
        Ok(Self {
            store,
            suite: Suite::fastest(),
            table,
            first,
            entries: Vec::new(),
            data: None,
            meta: None,
            moved: None,
            compressors: Vec::new(),
            branches: HashMap::new(),
            unnamed: Vec::new(),
            is_listed: false,
            room: Vec::new(),
            birth,
            added: 0,
            is_early: false,
        })
    }

    /// Lets packs be sent as soon as they are durable.
    pub fn show_early(&mut self) {
        self.is_early = true;
    }

    /// What compresses chunks for this packer, which gets it back with them.
    pub fn compressors(&mut self) -> Result<Compressors, FsError> {
        let mut all = std::mem::take(&mut self.compressors);
        while all.len() <= compress_threads() {
            all.push(FrameCompressor::new()?);
        }
        Ok(Compressors(all))
    }

    /// Adds chunks that were compressed, in their order.
    pub fn chunks(
        &mut self,
        chunks: &[(ChunkId, &[u8])],
        compressors: Compressors,
    ) -> Result<Vec<Location>, FsError> {
        let mut payloads = vec![None; chunks.len()];
        for (at, payload) in compressors.0.iter().flat_map(FrameCompressor::frames) {
            payloads[at] = payload;
        }
        let frame = |((id, plain), payload): (&(ChunkId, &[u8]), _)| {
            self.frame(PackKind::Data, FrameName::Chunk(*id), plain, payload)
        };
        let locations = chunks.iter().zip(payloads).map(frame).collect();
        self.compressors = compressors.0;
        locations
    }

    /// Compresses one frame and adds it.
    fn add(&mut self, kind: PackKind, name: FrameName, plain: &[u8]) -> Result<Location, FsError> {
        let mut ours = match self.compressors.pop() {
            Some(compressor) => compressor,
            None => FrameCompressor::new()?,
        };
        let location = ours.compress(&[((), plain)], &AtomicUsize::new(0)).and_then(|()| {
            let payload = ours.frames().next().and_then(|(_, payload)| payload);
            self.frame(kind, name, plain, payload)
        });
        self.compressors.push(ours);
        location
    }

    /// Adds a frame as it lies in another pack, whose key it keeps; returns where it lies.
    pub fn moved(&mut self, frame: &[u8]) -> Result<(PackNumber, u32), FsError> {
        let writer = self.writer_for(PackKind::Moved, Some(frame.len()))?;
        let offset = writer.bytes.len() as u32;
        writer.bytes.put(frame);
        Ok((PackNumber(writer.number), offset))
    }

    /// Adds a node and remembers it.
    pub fn node(&mut self, node: Node) -> Result<NodePtr, FsError> {
        let bytes = node.encode();
        let id = self.store.keys.nodes.name(&bytes);
        let location = self.add(PackKind::Meta, FrameName::Node(id), &bytes)?;
        let pointer = NodePtr { id, location };
        let node = Arc::new(node);
        if matches!(*node, Node::Branch { .. }) {
            self.branches.insert(id, node.clone());
        }
        self.store.remember_node(&pointer, node);
        Ok(pointer)
    }

    /// A branch that was added here.
    pub fn branch(&self, id: &NodeId) -> Option<Arc<Node>> {
        self.branches.get(id).cloned()
    }

    /// Adds a frame with its compressed payload, where it has one that is worth it.
    fn frame(
        &mut self,
        kind: PackKind,
        name: FrameName,
        plain: &[u8],
        compressed: Option<&[u8]>,
    ) -> Result<Location, FsError> {
        let payload = compressed.unwrap_or(plain).len();
        // Pages of the table stay in the pack that the seal closes last.
        let may_close = !matches!(name, FrameName::Page(_));
        let domain = self.store.keys.domain;
        let writer = self.writer_for(kind, may_close.then_some(payload))?;
        let start = writer.bytes.len();
        if let Some(compressed) = compressed {
            let mut head = vec![Codec::Zstd as u8];
            fs_format::put_varint(&mut head, plain.len() as u64);
            writer.bytes.put(&head);
            writer.bytes.put(compressed);
        } else {
            writer.bytes.put(&[Codec::Raw as u8]);
            writer.bytes.put(plain);
        }
        let offset = start as u32;
        let payload = &mut writer.bytes[start..];
        let len = (payload.len() + TAG_BYTES) as u32;
        let tag = writer.cipher.seal(u64::from(offset), &name.associated(&domain), payload);
        writer.bytes.put(&tag);
        writer.directory.push(DirectoryEntry { name, len });
        Ok(Location { pack: PackNumber(writer.number), offset, len })
    }

    fn writer(&mut self, kind: PackKind) -> &mut Option<OpenWriter> {
        match kind {
            PackKind::Data => &mut self.data,
            PackKind::Meta => &mut self.meta,
            PackKind::Moved => &mut self.moved,
        }
    }

    /// What writes the next frame of a kind; begins another pack where this payload, which may go there, has no room.
    fn writer_for(&mut self, kind: PackKind, payload: Option<usize>) -> Result<&mut OpenWriter, FsError> {
        let is_full = |writer: &OpenWriter| payload.is_some_and(|payload| !writer.has_room_for(payload));
        if self.writer(kind).as_ref().is_some_and(is_full) {
            self.close(kind)?;
        }
        if self.writer(kind).is_none() {
            let writer = self.begin(kind);
            *self.writer(kind) = Some(writer);
        }
        Ok(self.writer(kind).as_mut().expect("just begun"))
    }

    fn begin(&mut self, kind: PackKind) -> OpenWriter {
        let number = self.first + self.entries.len() as u32;
        self.entries.push(None);
        let mut random = [0; 32];
        self.store.env.chance.fill(&mut random);
        // Hedged: even a machine whose chance repeats gets another salt for another seal or pack.
        let salt = fs_crypto::hedged_salt(
            &random,
            &[
                &self.birth.0.to_le_bytes(),
                &number.to_le_bytes(),
                &self.store.env.clock.now().0.to_le_bytes(),
            ],
        );
        let header = PackHeader { suite: self.suite as u8, kind, salt, domain: self.store.keys.domain };
        let cipher = self.store.keys.read.pack_cipher(self.suite, kind as u8, &salt);
        let mut bytes = self.room.pop().unwrap_or_else(|| Growing::with_room(PACK_ROOM_BYTES));
        bytes.put(&header.encode());
        OpenWriter { number, cipher, header, bytes, directory: Vec::new() }
    }

    fn close(&mut self, kind: PackKind) -> Result<(), FsError> {
        let Some(mut writer) = self.writer(kind).take() else { return Ok(()) };
        let mut directory = pack::encode_directory(&writer.directory);
        let frames = writer.bytes.len();
        let plain = (frames + directory.len() + TAG_BYTES + PACK_TRAILER_BYTES) as u64;
        directory.resize(directory.len() + (pack::padme(plain) - plain) as usize, 0);
        let cipher = self.store.keys.read.directory_cipher(self.suite, &writer.header.salt);
        let tag = cipher.seal(frames as u64, b"directory", &mut directory);
        writer.bytes.put(&directory);
        writer.bytes.put(&tag);
        let mut trailer = pack::encode_trailer(frames as u32, (directory.len() + TAG_BYTES) as u32);
        let tag = cipher.seal(u64::MAX, b"trailer", &mut trailer);
        writer.bytes.put(&trailer);
        writer.bytes.put(&tag);

        let object = PackId(*blake3::hash(&writer.bytes).as_bytes());
        let path = format!("packs/.new-{}", writer.number);
        let staged = replace::stage(&*self.store.env.disk, &path, |file| {
            file.write_large(&writer.bytes, 0)?;
            file.sync()
        });
        staged.map_err(|error| disk_error(&path, &error))?;
        self.added += writer.bytes.len() as u64;
        self.store.packed.store(self.added, Ordering::Relaxed);
        if self.is_early {
            self.store.early.add(self.birth, object, writer.bytes.len() as u64, path.clone());
        }
        self.unnamed.push(Unnamed { path, object });
        let entry = PackEntry { object, bytes: writer.bytes.len() as u32, birth: self.birth };
        self.entries[(writer.number - self.first) as usize] = Some(entry);
        writer.bytes.clear();
        self.room.push(writer.bytes);
        Ok(())
    }

    /// Closes what is open, makes all of it durable, and has `seal` write the manifest that names it, from the table
    /// with the new packs and the bytes of these. What no manifest can name afterwards is removed.
    pub fn finish(
        mut self,
        seal: impl FnOnce(PackTable, u64) -> Result<SealInfo, Unwritten>,
    ) -> Result<SealInfo, FsError> {
        let table = self.close_all()?;
        let disk = &self.store.env.disk;
        if !self.unnamed.is_empty() {
            let names: String = self.unnamed.iter().map(|pack| format!("{}\n", pack.object)).collect();
            // Not synced, since nothing rests on it: a power cut may leave the packs of one seal without it.
            replace::stage(&**disk, UNNAMED, |file| file.write_at(names.as_bytes(), 0))
                .map_err(|error| disk_error(UNNAMED, &error))?;
            self.is_listed = true;
        }
        for pack in &mut self.unnamed {
            let path = pack_path(&pack.object);
            disk.rename(&pack.path, &path).map_err(|error| disk_error(&path, &error))?;
            pack.path = path;
        }
        if self.added > 0 {
            disk.sync_dir("packs").map_err(|error| disk_error("packs", &error))?;
        }
        match seal(table.clone(), self.added) {
            Ok(info) => {
                self.unnamed.clear();
                self.store.extend(&table);
                Ok(info)
            }
            Err(Unwritten { error, may_count }) => {
                if may_count {
                    // Whoever opens the volume knows, and has the list.
                    self.unnamed.clear();
                    self.is_listed = false;
                }
                Err(error)
            }
        }
    }

    /// Closes what is open; returns the table with the new packs.
    ///
    /// Where the top of the table is full, its oldest entries move into a page, which
    /// the seal's own meta pack carries.
    fn close_all(&mut self) -> Result<PackTable, FsError> {
        let mut table = std::mem::take(&mut self.table);
        let mut pages = Vec::new();
        self.fold(&mut table, &mut pages)?;
        self.close(PackKind::Data)?;
        self.close(PackKind::Moved)?;
        let meta = self.meta.as_ref().map(|writer| writer.number);
        self.close(PackKind::Meta)?;
        for entry in std::mem::take(&mut self.entries) {
            table.packs.push(entry.expect("every pack that was begun is closed"));
        }
        if let (Some(number), false) = (meta, pages.is_empty()) {
            let at = table.packs.len() - (table.count() - u64::from(number)) as usize;
            let object = table.packs[at].object;
            for (level, index) in pages {
                let page: &mut PagePtr = &mut table.levels[level][index];
                page.object = object;
            }
        }
        Ok(table)
    }

    /// Moves full groups of the table's top into pages. Their object is filled in later.
    fn fold(&mut self, table: &mut PackTable, pages: &mut Vec<(usize, usize)>) -> Result<(), FsError> {
        if self.meta.is_none() {
            return Ok(());
        }
        let meta_number = self.meta.as_ref().map(|writer| writer.number);
        while table.packs.len() >= 2 * PACK_PAGE_ENTRIES {
            let entries: Vec<PackEntry> = table.packs.drain(..PACK_PAGE_ENTRIES).collect();
            let pointer = self.table_page(&PackPage::Packs(entries))?;
            if table.levels.is_empty() {
                table.levels.push(Vec::new());
            }
            table.levels[0].push(pointer);
            pages.push((0, table.levels[0].len() - 1));
        }
        assert_eq!(
            meta_number,
            self.meta.as_ref().map(|writer| writer.number),
            "pages are far smaller than what is left of a meta pack"
        );
        // A page of pages may only name pages whose object is known: those of earlier seals.
        let mut level = 0;
        while level < table.levels.len() {
            let fresh = pages.iter().filter(|(at, _)| *at == level).count();
            if table.levels[level].len() - fresh >= 2 * PACK_PAGE_ENTRIES {
                let group: Vec<PagePtr> = table.levels[level].drain(..PACK_PAGE_ENTRIES).collect();
                pages
                    .iter_mut()
                    .filter(|(at, _)| *at == level)
                    .for_each(|(_, index)| *index -= PACK_PAGE_ENTRIES);
                let pointer = self.table_page(&PackPage::Pages(group))?;
                if table.levels.len() == level + 1 {
                    table.levels.push(Vec::new());
                }
                table.levels[level + 1].push(pointer);
                pages.push((level + 1, table.levels[level + 1].len() - 1));
            }
            level += 1;
        }
        Ok(())
    }

    fn table_page(&mut self, page: &PackPage) -> Result<PagePtr, FsError> {
        let bytes = page.encode();
        let id = self.store.keys.nodes.name(&bytes);
        let location = self.add(PackKind::Meta, FrameName::Page(id), &bytes)?;
        Ok(PagePtr { id, object: PackId([0; 32]), offset: location.offset, len: location.len })
    }
}

impl Drop for Packer<'_> {
    /// A seal that fails for want of room must not take more of it with each try.
    fn drop(&mut self) {
        self.store.early.clear();
        let disk = &self.store.env.disk;
        let mut is_listed = self.is_listed;
        for pack in &self.unnamed {
            // What stays is removed when the volume is opened.
            is_listed &= disk.remove(&pack.path).is_ok();
        }
        if is_listed {
            let _ = disk.remove(UNNAMED);
        }
    }
}
