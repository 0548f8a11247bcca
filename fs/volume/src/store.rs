//! Packs on the local disk: reading frames, and the caches of what they hold.
//!
//! Invariants
//! - Bytes leave this module only after their tag and their keyed hash were verified.
//! - A node or chunk in a cache is what its name says, for ever: nothing is invalidated.
//! - A chunk's pack is looked at where it is here. Only where it is not, the newest tree is asked whether compaction moved
//!   the frame; so no chunk costs more for it in a volume that was never compacted.

mod early;
mod packer;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fs_crypto::{Cipher, Suite};
use fs_format::manifest::{PACK_PAGE_ENTRIES, PackEntry, PackPage, PackTable, PagePtr};
use fs_format::moved::Moved;
use fs_format::pack::{
    self, Codec, DirectoryEntry, FrameName, PACK_BYTES_MAX, PACK_HEADER_BYTES, PACK_TRAILER_BYTES,
    PackHeader, PackKind,
};
use fs_format::tree::{CHUNK_BYTES_MAX, ChunkRef, Location, NODE_BYTES_MAX, Node, NodePtr};
use fs_format::{ChunkId, DecodeError, NodeId, PackId, PackNumber, Seq};
use parking_lot::{Mutex, RwLock};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::buffer::Buffer;
use crate::env::{DiskFile, Env, OpenMode};
use crate::error::is_away;
use crate::findings::Findings;
use crate::history::settle;
use crate::keys::Keys;
use crate::readahead::Wanted;
use crate::tree::{Fault, Nodes, Root};
use crate::{FsError, layers, ledger, replace};

use self::early::Early;
pub use self::packer::Packer;

/// Packs whose files and keys are kept open.
const OPEN_PACKS_MAX: usize = 256;
/// Packs of which it is kept where their frames were moved to, and the runs of these, which take 12 bytes each.
const MOVED_PACKS_MAX: usize = 1024;
const MOVED_RUNS_MAX: usize = 1 << 20;
/// The largest piece of a pack that is hashed at once, in bytes.
const HASH_STEP: usize = 1 << 20;
/// What lies so many bytes apart in a pack is asked for at once, with what is between: on a line of 20 ms and 100 Mbit/s another
/// request takes as long as these bytes.
const NEAR_BYTES: u64 = 256 << 10;
/// Pages of the pack table that are kept.
const PAGES_MAX: usize = 1024;
/// Frames this long are read past the system's cache, which the kernel fills with the same bytes again,
/// decrypted; shorter ones profit from its readahead.
const LARGE_FRAME_BYTES: u32 = 64 << 10;
/// Tag bytes of a frame.
pub const TAG_BYTES: usize = Cipher::TAG_BYTES;

/// A list of packs that have their names and no manifest yet; there while a seal is between the two.
const UNNAMED: &str = "packs/unnamed";
/// What is read of it, in bytes: the packs of a seal of four terabytes.
const UNNAMED_BYTES_MAX: u64 = 16 << 20;

/// The path of a pack in the volume's folder.
pub fn pack_path(object: &PackId) -> String {
    format!("packs/{object}")
}

#[derive(Clone)]
struct NodeWeight;

impl Weighter<NodeId, Arc<Node>> for NodeWeight {
    fn weight(&self, _: &NodeId, node: &Arc<Node>) -> u64 {
        match &**node {
            Node::Leaf(records) => {
                records.iter().map(|(_, value)| 56 + value.len() as u64).sum::<u64>() + 128
            }
            Node::Branch { children, .. } => children.len() as u64 * 80 + 128,
        }
    }
}

#[derive(Clone)]
struct ChunkWeight;

impl Weighter<ChunkId, Arc<Buffer>> for ChunkWeight {
    fn weight(&self, _: &ChunkId, bytes: &Arc<Buffer>) -> u64 {
        bytes.memory_bytes() as u64 + 128
    }
}

/// What a thread needs to open frames, kept from one to the next.
struct Bench {
    /// The frame as it is stored, decrypted in place.
    frame: Buffer,
    /// What was decompressed.
    plain: Buffer,
    decompressor: zstd::bulk::Decompressor<'static>,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench {
        frame: Buffer::default(),
        plain: Buffer::default(),
        decompressor: zstd::bulk::Decompressor::new().expect("zstd starts: it only allocates"),
    });
}

impl Bench {
    /// What a payload holds, in the buffer in which it ends up.
    fn unpack(&mut self, plain_max: usize) -> Result<&mut Buffer, String> {
        let (codec, plain_len, payload) =
            pack::decode_payload(&self.frame, plain_max).map_err(|error| format!("a payload {error}"))?;
        if codec == Codec::Raw {
            let len = payload.len();
            let head = self.frame.len() - len;
            self.frame.narrow(head, len);
            return Ok(&mut self.frame);
        }
        self.plain.reset(plain_len);
        match self.decompressor.decompress_to_buffer(payload, &mut *self.plain) {
            Ok(len) if len == plain_len => Ok(&mut self.plain),
            Ok(_) => Err("decompresses to another length".into()),
            Err(error) => Err(format!("does not decompress: {error}")),
        }
    }
}

/// A cache in whose newer half what was read ahead waits to be asked for.
fn chunk_cache(bytes: u64) -> Cache<ChunkId, Arc<Buffer>, ChunkWeight> {
    let options = quick_cache::OptionsBuilder::new()
        .estimated_items_capacity((bytes / 65_536) as usize)
        .weight_capacity(bytes)
        .hot_allocation(0.5)
        .build()
        .expect("both capacities are given");
    Cache::with_options(options, ChunkWeight, Default::default(), Default::default())
}

/// Where a frame lies.
struct Place<'a> {
    object: &'a PackId,
    /// The pack's number, where compaction may have moved the frame.
    number: Option<PackNumber>,
    /// The pack's length, where the table says it. A page of the table is found without.
    bytes: Option<u64>,
    offset: u32,
    len: u32,
}

impl Place<'_> {
    fn range(&self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.len)
    }
}

/// Where the frames of a pack lie that compaction moved, and what opens them there.
struct MovedPack {
    record: Moved,
    cipher: Cipher,
}

/// Where a frame was moved to.
struct MovedFrame {
    /// The pack that it is a frame of.
    pack: Arc<MovedPack>,
    /// The pack in which it lies.
    to: PackNumber,
    /// Its offset in that.
    at: u32,
}

impl MovedFrame {
    /// That of a frame of this pack, if it was moved.
    fn of(pack: Arc<MovedPack>, place: &Place<'_>) -> Option<Self> {
        let (to, at) = pack.record.find(place.offset, place.len)?;
        Some(Self { pack, to, at })
    }

    fn at(&self) -> (PackNumber, u32) {
        (self.to, self.at)
    }
}

/// What is known of what compaction moved.
#[derive(Default)]
struct KnownMoves {
    /// The newest tree that is known, if it may say of any frame that it was moved.
    newest: Option<(Seq, Root)>,
    /// What it says of some packs.
    packs: HashMap<PackNumber, Option<Arc<MovedPack>>>,
    /// The runs in all of them.
    runs: usize,
}

struct OpenPack {
    file: Arc<dyn DiskFile>,
    suite: Suite,
    kind: PackKind,
    salt: [u8; 32],
    cipher: Cipher,
}

/// The packs of a volume and what was read of them.
pub struct Store {
    /// The world.
    pub env: Env,
    /// What names and decrypts.
    pub keys: Arc<Keys>,
    table: RwLock<PackTable>,
    pages: Mutex<HashMap<NodeId, Arc<PackPage>>>,
    open: Mutex<HashMap<PackId, Arc<OpenPack>>>,
    moves: Mutex<KnownMoves>,
    /// Whether anything may have been moved.
    has_moved: AtomicBool,
    nodes: Cache<NodeId, Arc<Node>, NodeWeight>,
    chunks: Cache<ChunkId, Arc<Buffer>, ChunkWeight>,
    wanted: Wanted,
    /// Bytes of packs that the running seal has on the disk already.
    pub packed: AtomicU64,
    /// Which these are.
    pub early: Early,
    /// What was found damaged.
    pub found: Findings,
}

impl Store {
    /// A store whose caches hold about `cache_bytes`; with 0 everything is read each time.
    pub fn new(env: Env, keys: Arc<Keys>, table: PackTable, cache_bytes: u64) -> Self {
        let half = if cache_bytes == 0 { 0 } else { (cache_bytes / 2).max(1 << 20) };
        Self {
            env,
            keys,
            table: RwLock::new(table),
            pages: Mutex::default(),
            open: Mutex::default(),
            moves: Mutex::default(),
            has_moved: AtomicBool::new(false),
            nodes: Cache::with_weighter((half / 16_384) as usize, half, NodeWeight),
            chunks: chunk_cache(half),
            wanted: Wanted::default(),
            packed: AtomicU64::new(0),
            early: Early::default(),
            found: Findings::default(),
        }
    }

    /// The memory for what was read, in bytes.
    pub fn cache_bytes(&self) -> u64 {
        2 * self.chunks.capacity()
    }

    /// The table of packs as far as it is known.
    pub fn table(&self) -> PackTable {
        self.table.read().clone()
    }

    /// How many packs it has.
    pub fn pack_count(&self) -> u32 {
        // Packs have 32-bit numbers: a location could not name others.
        u32::try_from(self.table.read().count()).unwrap_or(u32::MAX)
    }

    /// Learns of packs that a newer manifest lists. Numbers never change their meaning.
    pub fn extend(&self, table: &PackTable) {
        let mut known = self.table.write();
        if table.count() > known.count() {
            *known = table.clone();
        }
    }

    /// Learns of a newer tree, which says where frames were moved to, if any were.
    pub fn follow(&self, seq: Seq, root: Root, has_moved: bool) {
        let mut known = self.moves.lock();
        if has_moved && known.newest.is_none_or(|(newest, _)| newest < seq) {
            *known = KnownMoves { newest: Some((seq, root)), ..KnownMoves::default() };
            self.has_moved.store(true, Ordering::Release);
        }
    }

    /// Whether compaction may have moved anything.
    pub fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Acquire)
    }

    /// The number of the newest tree that is known to say where something was moved to.
    pub fn moves_as_of(&self) -> Option<Seq> {
        self.moves.lock().newest.map(|(seq, _)| seq)
    }

    /// Where frames of a pack were moved to, as the newest tree says.
    fn moved_pack(&self, nodes: &impl Nodes, number: PackNumber) -> Result<Option<Arc<MovedPack>>, Fault> {
        let (seq, root) = {
            let known = self.moves.lock();
            if let Some(pack) = known.packs.get(&number) {
                return Ok(pack.clone());
            }
            let Some(newest) = known.newest else { return Ok(None) };
            newest
        };
        let pack = match ledger::moved(nodes, &root, number)? {
            Some(record) => {
                let suite = Suite::from_u8(record.suite).ok_or_else(|| {
                    FsError::Damaged(format!("what was moved of pack {number} has an unknown cipher suite"))
                })?;
                let cipher = self.keys.read.pack_cipher(suite, PackKind::Data as u8, &record.salt);
                Some(Arc::new(MovedPack { record, cipher }))
            }
            None => None,
        };
        let mut known = self.moves.lock();
        // A newer tree may say otherwise.
        if known.newest.is_some_and(|(newest, _)| newest == seq) {
            let runs = pack.as_ref().map_or(0, |pack| pack.record.runs());
            if known.packs.len() >= MOVED_PACKS_MAX || known.runs + runs > MOVED_RUNS_MAX {
                known.packs.clear();
                known.runs = 0;
            }
            known.runs += runs;
            known.packs.insert(number, pack.clone());
        }
        Ok(pack)
    }

    /// Whether a pack's file is on this machine.
    pub fn has_file(&self, object: &PackId) -> bool {
        if self.open.lock().contains_key(object) {
            return true;
        }
        let path = pack_path(object);
        match self.env.disk.ahead() {
            Some(ahead) => ahead.is_here(&path),
            None => self.env.disk.open(&path, OpenMode::Read).is_ok(),
        }
    }

    /// Where a frame was moved to, if it was moved and its own pack is not here.
    fn moved_frame(&self, nodes: &impl Nodes, place: &Place<'_>) -> Result<Option<MovedFrame>, Fault> {
        let Some(number) = place.number.filter(|_| self.has_moved()) else { return Ok(None) };
        // Who was led elsewhere once is so again, without a look at the disk.
        let is_known = self.moves.lock().packs.get(&number).is_some_and(Option::is_some);
        if !is_known && self.has_file(place.object) {
            return Ok(None);
        }
        Ok(self.moved_pack(nodes, number)?.and_then(|pack| MovedFrame::of(pack, place)))
    }

    /// The line of a pack.
    pub fn pack_entry(&self, number: PackNumber) -> Result<PackEntry, FsError> {
        let mut page =
            {
                let table = self.table.read();
                let mut rest = u64::from(number.0);
                let mut found = None;
                for (height, level) in table.levels.iter().enumerate().rev() {
                    let span = (PACK_PAGE_ENTRIES as u64).pow(height as u32 + 1);
                    if rest < level.len() as u64 * span {
                        found = Some((level[(rest / span) as usize], rest % span, span));
                        break;
                    }
                    rest -= level.len() as u64 * span;
                }
                match found {
                    Some(found) => found,
                    None => {
                        return table.packs.get(rest as usize).copied().ok_or_else(|| {
                            FsError::Damaged(format!("pack {number} is not in the pack table"))
                        });
                    }
                }
            };
        loop {
            let (pointer, rest, span) = page;
            let span = span / PACK_PAGE_ENTRIES as u64;
            match &*self.page(&pointer)? {
                PackPage::Packs(entries) => return Ok(entries[rest as usize]),
                PackPage::Pages(pages) => {
                    if span == 0 {
                        return Err(FsError::Damaged("the pack table is deeper than it says".into()));
                    }
                    page = (pages[(rest / span) as usize], rest % span, span);
                }
            }
        }
    }

    /// A page of the pack table.
    pub fn page(&self, pointer: &PagePtr) -> Result<Arc<PackPage>, FsError> {
        if let Some(page) = self.pages.lock().get(&pointer.id) {
            return Ok(page.clone());
        }
        let name = FrameName::Page(pointer.id);
        let PagePtr { object, offset, len, .. } = pointer;
        let place = Place { object, number: None, bytes: None, offset: *offset, len: *len };
        let page = self.frame(&place, name, NODE_BYTES_MAX, |bytes| {
            if self.keys.nodes.name(bytes) != pointer.id {
                return Err(damaged(object, *offset, "a page is not what its name says"));
            }
            PackPage::decode(bytes).map_err(|error| damaged(object, *offset, &format!("a page {error}")))
        })?;
        let page = Arc::new(page);
        let mut pages = self.pages.lock();
        if pages.len() >= PAGES_MAX {
            pages.clear();
        }
        pages.insert(pointer.id, page.clone());
        Ok(page)
    }

    /// A node, if it is in the cache.
    pub fn cached_node(&self, pointer: &NodePtr) -> Option<Arc<Node>> {
        self.nodes.get(&pointer.id)
    }

    /// Puts a node that was just written in the cache.
    pub fn remember_node(&self, pointer: &NodePtr, node: Arc<Node>) {
        self.nodes.insert(pointer.id, node);
    }

    /// A node, from the cache or its pack.
    pub fn node(&self, pointer: &NodePtr) -> Result<Arc<Node>, FsError> {
        if let Some(node) = self.nodes.get(&pointer.id) {
            return Ok(node);
        }
        let node = self.read_node(pointer).inspect_err(|error| self.found.note_error(error))?;
        let node = Arc::new(node);
        self.nodes.insert(pointer.id, node.clone());
        Ok(node)
    }

    /// A node from the cache or its pack, for a look at everything once: what others read often stays in the cache.
    pub fn peek_node(&self, pointer: &NodePtr) -> Result<Arc<Node>, FsError> {
        match self.nodes.peek(&pointer.id) {
            Some(node) => Ok(node),
            None => self.read_node(pointer).map(Arc::new),
        }
    }

    /// A node from its pack.
    pub fn read_node(&self, pointer: &NodePtr) -> Result<Node, FsError> {
        let Location { pack, offset, len } = pointer.location;
        let PackEntry { object, bytes, .. } = self.pack_entry(pack)?;
        let place = Place { object: &object, number: None, bytes: Some(bytes.into()), offset, len };
        self.frame(&place, FrameName::Node(pointer.id), NODE_BYTES_MAX, |bytes| {
            if self.keys.nodes.name(bytes) != pointer.id {
                return Err(damaged(&object, offset, "a node is not what its name says"));
            }
            Node::decode(bytes).map_err(|error| damaged(&object, offset, &format!("a node {error}")))
        })
    }

    /// Whether a chunk is in the cache.
    pub fn has_chunk(&self, chunk: &ChunkRef) -> bool {
        self.chunks.contains_key(&chunk.chunk)
    }

    /// A chunk's plain bytes, from the cache or its pack.
    pub fn chunk(&self, chunk: &ChunkRef) -> Result<Arc<Buffer>, FsError> {
        // Of several who want the same chunk one reads it: readahead asks for its parts at once.
        self.chunks.get_or_insert_with(&chunk.chunk, || self.read_chunk(chunk))
    }

    /// Chunks that will be asked for soon.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether it is of any use to say what will be read.
    pub fn reads_ahead(&self) -> bool {
        self.wanted.is_served() || self.env.disk.ahead().is_some()
    }

    /// Says which chunks will be read, where packs may have to come from afar: those that lie near each other at once.
    pub fn will_read<'c>(&self, chunks: impl IntoIterator<Item = &'c ChunkRef>) {
        let Some(ahead) = self.env.disk.ahead() else { return };
        // Who reads them gets the error.
        let places = chunks.into_iter().filter_map(|chunk| self.place_without_waiting(&chunk.location));
        let mut places: Vec<Location> = places.collect();
        places.sort_by_key(|place| (place.pack, place.offset));
        let end = |place: &Location| u64::from(place.offset) + u64::from(place.len);
        let is_near = |one: &Location, next: &Location| {
            one.pack == next.pack && u64::from(next.offset) <= end(one) + NEAR_BYTES
        };
        for run in places.chunk_by(is_near) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let Ok(entry) = self.pack_entry(first.pack) else { continue };
            let range = u64::from(first.offset)..end(last);
            ahead.will_read(&pack_path(&entry.object), Some(entry.bytes.into()), range);
        }
    }

    /// Where a frame lies. If it may have been moved, and to tell where needs a node that is not in the cache, nowhere.
    fn place_without_waiting(&self, location: &Location) -> Option<Location> {
        if !self.has_moved() {
            return Some(*location);
        }
        let &Location { pack, offset, len } = location;
        let object = self.pack_entry(pack).ok()?.object;
        let place = Place { object: &object, number: Some(pack), bytes: None, offset, len };
        let nodes = layers::Cached { store: self, pinned: &HashMap::new() };
        let moved = self.moved_frame(&nodes, &place).ok()?;
        Some(moved.map_or(*location, |moved| Location { pack: moved.to, offset: moved.at, len }))
    }

    /// Brings chunks that are wanted into the cache, until that is stopped.
    pub fn fetch_wanted(&self) {
        self.wanted.serve(|chunk| {
            // Who asks for it himself gets the error.
            let _ = self.chunk(chunk);
        });
    }

    /// A chunk's plain bytes from its pack.
    pub fn read_chunk(&self, chunk: &ChunkRef) -> Result<Arc<Buffer>, FsError> {
        let Location { pack, offset, len } = chunk.location;
        let PackEntry { object, bytes, .. } = self.pack_entry(pack)?;
        let place = Place { object: &object, number: Some(pack), bytes: Some(bytes.into()), offset, len };
        self.frame(&place, FrameName::Chunk(chunk.chunk), CHUNK_BYTES_MAX, |bytes| {
            if self.keys.chunks.name(bytes) != chunk.chunk {
                return Err(damaged(&object, offset, "a chunk is not what its name says"));
            }
            let large = bytes.len() >= LARGE_FRAME_BYTES as usize;
            Ok(Arc::new(if large { std::mem::take(bytes) } else { Buffer::from(&**bytes) }))
        })
    }

    /// Whether a chunk can be read from its pack, and these are its bytes.
    pub fn holds(&self, chunk: &ChunkRef, plain: &[u8]) -> Result<bool, FsError> {
        let Location { pack, offset, len } = chunk.location;
        let PackEntry { object, bytes, .. } = self.pack_entry(pack)?;
        let place = Place { object: &object, number: Some(pack), bytes: Some(bytes.into()), offset, len };
        self.frame(&place, FrameName::Chunk(chunk.chunk), CHUNK_BYTES_MAX, |bytes| Ok(**bytes == *plain))
    }

    /// Whether a pack is on this machine, so that reading it waits for no network.
    pub fn is_here(&self, number: PackNumber) -> bool {
        let Some(ahead) = self.env.disk.ahead() else { return true };
        self.pack_entry(number).is_ok_and(|entry| ahead.is_here(&pack_path(&entry.object)))
    }

    /// What the directory of a pack of chunks lists, in the order of the frames; nothing of one of nodes.
    pub fn directory(&self, number: PackNumber) -> Result<Vec<DirectoryEntry>, FsError> {
        let PackEntry { object, bytes, .. } = self.pack_entry(number)?;
        let path = pack_path(&object);
        let fail = |error: std::io::Error| read_error(&path, &error);
        let refuse = |error: DecodeError| FsError::Damaged(format!("{path} {error}"));
        let untrue = || FsError::Damaged(format!("{path} failed its integrity check (directory)"));
        let whole = Place { object: &object, number: None, bytes: Some(bytes.into()), offset: 0, len: bytes };
        let pack = self.open_pack(&whole)?;
        if pack.kind != PackKind::Data {
            return Ok(Vec::new());
        }
        let cipher = self.keys.read.directory_cipher(pack.suite, &pack.salt);
        let end = u64::from(bytes).checked_sub(PACK_TRAILER_BYTES as u64).ok_or_else(untrue)?;
        let mut trailer = [0; PACK_TRAILER_BYTES];
        pack.file.read_at(&mut trailer, end).map_err(fail)?;
        let (place, tag) = trailer.split_at_mut(PACK_TRAILER_BYTES - TAG_BYTES);
        let tag = (&*tag).try_into().expect("a trailer ends with a tag");
        cipher.open(u64::MAX, b"trailer", place, tag).map_err(|_| untrue())?;
        let place = (&*place).try_into().expect("the rest of a trailer");
        let (offset, len) = pack::decode_trailer(place, u64::from(bytes)).map_err(refuse)?;
        let mut directory = vec![0; len as usize];
        pack.file.read_at(&mut directory, u64::from(offset)).map_err(fail)?;
        let (plain, tag) = directory.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(untrue)?;
        cipher.open(u64::from(offset), b"directory", plain, tag).map_err(|_| untrue())?;
        pack::decode_directory(plain).map_err(refuse)
    }

    /// Reads and opens a frame, and hands what it holds to `take`, which may keep the buffer but reads no frame itself.
    fn frame<T>(
        &self,
        place: &Place<'_>,
        name: FrameName,
        plain_max: usize,
        take: impl FnOnce(&mut Buffer) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let &Place { object, offset, len, .. } = place;
        if (len as usize) < TAG_BYTES + 1 || len as usize > fs_format::tree::FRAME_BYTES_MAX {
            return Err(damaged(object, offset, "a frame's length is out of bounds"));
        }
        let moved = settle(self.moved_frame(self, place))?;
        if let Err(error) = self.bring_from(moved.as_ref(), place, &name) {
            // What was there may have been moved meanwhile, and removed; or it is damaged, and whole where it was moved to.
            let later = match place.number.filter(|_| self.has_moved() && error.is_about_the_disk()) {
                Some(number) => settle(self.moved_pack(self, number))?,
                None => None,
            };
            let later = later.and_then(|pack| MovedFrame::of(pack, place));
            if later.is_none() || later.as_ref().map(MovedFrame::at) == moved.as_ref().map(MovedFrame::at) {
                return Err(error);
            }
            self.bring_from(later.as_ref(), place, &name)?;
        }
        BENCH.with_borrow_mut(|bench| {
            take(bench.unpack(plain_max).map_err(|error| damaged(object, offset, &error))?)
        })
    }

    /// Reads a frame from where it was moved to, if it was, to this thread's bench, and decrypts it there.
    fn bring_from(
        &self,
        moved: Option<&MovedFrame>,
        place: &Place<'_>,
        name: &FrameName,
    ) -> Result<(), FsError> {
        let Some(MovedFrame { pack, to, at }) = moved else { return self.bring(place, None, name) };
        let PackEntry { object, bytes, .. } = self.pack_entry(*to)?;
        let there =
            Place { object: &object, number: None, bytes: Some(bytes.into()), offset: *at, len: place.len };
        self.bring(&there, Some((&pack.cipher, place.offset)), name)
    }

    /// Reads a frame to this thread's bench and decrypts it there. One that was moved is opened by what its own pack opens,
    /// as what lay in that at an offset.
    fn bring(
        &self,
        place: &Place<'_>,
        moved: Option<(&Cipher, u32)>,
        name: &FrameName,
    ) -> Result<(), FsError> {
        let pack = self.open_pack(place)?;
        let mut is_whole = self.open_frame(&pack, place, moved, name)?;
        // It may have come wrong from afar, or the header that its key was made with.
        if !is_whole && self.renew(&pack, place)? {
            is_whole = self.open_frame(&*self.open_pack(place)?, place, moved, name)?;
        }
        if is_whole {
            return Ok(());
        }
        // Whoever mends the pack puts another file in its place.
        self.close_pack(place.object);
        Err(damaged(place.object, place.offset, "a frame failed its integrity check"))
    }

    /// Reads a frame to this thread's bench and decrypts it there; whether it is whole.
    fn open_frame(
        &self,
        pack: &OpenPack,
        place: &Place<'_>,
        moved: Option<(&Cipher, u32)>,
        name: &FrameName,
    ) -> Result<bool, FsError> {
        let (cipher, nonce) = moved.unwrap_or((&pack.cipher, place.offset));
        let &Place { object, offset, len, .. } = place;
        BENCH.with_borrow_mut(|bench| {
            let frame = &mut bench.frame;
            if len >= LARGE_FRAME_BYTES {
                pack.file.read_large(frame, u64::from(offset), len as usize)
            } else {
                frame.reset(len as usize);
                pack.file.read_at(frame, u64::from(offset))
            }
            .map_err(|error| read_error(&pack_path(object), &error))?;
            let (bytes, tag) =
                frame.split_last_chunk_mut::<TAG_BYTES>().expect("longer than a tag, as checked");
            let opened = cipher.open(u64::from(nonce), &name.associated(&self.keys.domain), bytes, tag);
            frame.narrow(0, len as usize - TAG_BYTES);
            Ok(opened.is_ok())
        })
    }

    /// Has a frame and its pack's header read anew; whether that may help.
    fn renew(&self, pack: &OpenPack, place: &Place<'_>) -> Result<bool, FsError> {
        let renew = |range| pack.file.renew(range);
        let renewed = renew(0..PACK_HEADER_BYTES as u64).and_then(|is| Ok(renew(place.range())? && is));
        let may_help = renewed.map_err(|error| read_error(&pack_path(place.object), &error))?;
        if may_help {
            self.open.lock().remove(place.object);
        }
        Ok(may_help)
    }

    /// Removes the packs that a seal had given their names when it ended, before the manifest that would have named them.
    ///
    /// The table must be that of the newest manifest: what is in it stays, whatever the list says.
    pub fn remove_unnamed(&self) -> Result<(), FsError> {
        let disk = &self.env.disk;
        let fail = |error: std::io::Error| disk_error(UNNAMED, &error);
        let file = match disk.open(UNNAMED, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(fail)?,
        };
        let len = file.len().map_err(fail)?.min(UNNAMED_BYTES_MAX);
        let mut names = vec![0; len as usize];
        file.read_at(&mut names, 0).map_err(fail)?;
        // A power cut may have left anything of it.
        let mut unnamed: HashSet<PackId> =
            String::from_utf8_lossy(&names).lines().filter_map(PackId::from_hex).collect();
        for number in 0..self.pack_count() {
            unnamed.remove(&self.pack_entry(PackNumber(number))?.object);
        }
        for object in unnamed {
            replace::remove_if_there(&**disk, &pack_path(&object)).map_err(fail)?;
        }
        disk.remove(UNNAMED).map_err(fail)
    }

    /// Compares a pack with its name; returns its bytes.
    pub fn check_pack(&self, object: &PackId) -> Result<u64, FsError> {
        let path = pack_path(object);
        let fail = |error: std::io::Error| read_error(&path, &error);
        let file = self.env.disk.open(&path, OpenMode::Read).map_err(fail)?;
        let len = file.len().map_err(fail)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_STEP];
        let mut at = 0;
        while at < len {
            let step = (len - at).min(HASH_STEP as u64) as usize;
            file.read_at(&mut buffer[..step], at).map_err(fail)?;
            hasher.update(&buffer[..step]);
            at += step as u64;
        }
        if hasher.finalize().as_bytes() != &object.0 {
            return Err(FsError::Damaged(format!("{path} is not what its name says")));
        }
        Ok(len)
    }

    /// A pack, byte for byte, after a look at whether its hash is its name.
    pub fn whole_pack(&self, object: &PackId) -> Result<Vec<u8>, FsError> {
        self.whole_file(&pack_path(object), object)
    }

    /// A pack of the running seal, which gets its name at the end; nothing where the seal has given it up.
    pub fn early_pack(&self, object: &PackId) -> Option<Vec<u8>> {
        let early = self.early.path(object).and_then(|path| self.whole_file(&path, object).ok());
        early.or_else(|| self.whole_pack(object).ok())
    }

    fn whole_file(&self, path: &str, object: &PackId) -> Result<Vec<u8>, FsError> {
        let fail = |error: std::io::Error| read_error(path, &error);
        let file = self.env.disk.open(path, OpenMode::Read).map_err(fail)?;
        let len = file.len().map_err(fail)?;
        if len > PACK_BYTES_MAX {
            return Err(FsError::Damaged(format!("{path} is larger than a pack can be")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0).map_err(fail)?;
        match blake3::hash(&bytes).as_bytes() == &object.0 {
            true => Ok(bytes),
            false => Err(FsError::Damaged(format!("{path} is not what its name says"))),
        }
    }

    /// Lets go of a pack's file, so that its room comes back when the file is removed.
    pub fn close_pack(&self, object: &PackId) {
        self.open.lock().remove(object);
    }

    /// A pack's file and key, for who wants a frame of it next.
    fn open_pack(&self, place: &Place<'_>) -> Result<Arc<OpenPack>, FsError> {
        let object = place.object;
        if let Some(pack) = self.open.lock().get(object) {
            return Ok(pack.clone());
        }
        let path = pack_path(object);
        let header_range = 0..PACK_HEADER_BYTES as u64;
        if let Some(ahead) = self.env.disk.ahead() {
            // From afar the header and the frame come at the same time.
            ahead.will_read(&path, place.bytes, place.range());
            ahead.will_read(&path, place.bytes, header_range.clone());
        }
        let fail = |error: std::io::Error| read_error(&path, &error);
        let file = self.env.disk.open(&path, OpenMode::Read).map_err(fail)?;
        let mut bytes = [0; PACK_HEADER_BYTES];
        file.read_at(&mut bytes, 0).map_err(fail)?;
        let mut header = PackHeader::decode(&bytes);
        if header.is_err() && file.renew(header_range).map_err(fail)? {
            file.read_at(&mut bytes, 0).map_err(fail)?;
            header = PackHeader::decode(&bytes);
        }
        let header = header.map_err(|error| match error {
            // The name is a hash of the whole, so a flipped bit is not taken for a newer version.
            DecodeError::Newer { found, .. } if self.check_pack(object).is_ok() => {
                FsError::Newer(format!("{path} has version {found}"))
            }
            DecodeError::Newer { .. } => {
                FsError::Damaged(format!("{path} failed its integrity check (header)"))
            }
            error => FsError::Damaged(format!("{path} {error}")),
        })?;
        let suite = Suite::from_u8(header.suite)
            .ok_or_else(|| FsError::Damaged(format!("{path} has an unknown cipher suite")))?;
        let cipher = self.keys.read.pack_cipher(suite, header.kind as u8, &header.salt);
        let pack = Arc::new(OpenPack { file, suite, kind: header.kind, salt: header.salt, cipher });
        let mut open = self.open.lock();
        if open.len() >= OPEN_PACKS_MAX {
            // Any half will do: opening again costs one small read.
            let some: Vec<PackId> = open.keys().take(OPEN_PACKS_MAX / 2).copied().collect();
            some.iter().for_each(|id| drop(open.remove(id)));
        }
        open.insert(*object, pack.clone());
        Ok(pack)
    }
}

fn damaged(object: &PackId, offset: u32, what: &str) -> FsError {
    FsError::Damaged(format!("{} at byte {offset}: {what}", pack_path(object)))
}

/// Translates an error of reading: a file that is not there or ends early is damage, what did not come from afar may
/// come yet, the rest is the disk's.
pub fn read_error(path: &str, error: &std::io::Error) -> FsError {
    match error.kind() {
        std::io::ErrorKind::NotFound => FsError::Damaged(format!("{path} is missing")),
        std::io::ErrorKind::UnexpectedEof => FsError::Damaged(format!("{path} ends early")),
        std::io::ErrorKind::InvalidData => FsError::Damaged(format!("{path}: {error}")),
        _ if is_away(error) => FsError::Away(format!("{path}: {error}")),
        _ => FsError::Disk(format!("{path}: {error}")),
    }
}

/// Whether the disk has no room, or none for this user.
pub fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Translates an error of writing.
pub fn disk_error(what: &str, error: &std::io::Error) -> FsError {
    if is_full(error) { FsError::NoSpace } else { FsError::Disk(format!("{what}: {error}")) }
}

#[cfg(test)]
mod tests {
    use fs_crypto::VolumeKey;

    use super::*;

    #[test]
    fn a_newer_pack_is_told_from_one_with_a_flipped_bit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("packs")).expect("a folder");
        let keys = Arc::new(Keys::new(VolumeKey::from_seed([7; 32]).read_key()));
        let store = Store::new(crate::real::env(folder.path()), keys, PackTable::default(), 1 << 20);
        let header = PackHeader { suite: 1, kind: PackKind::Data, salt: [3; 32], domain: [4; 16] };
        let mut bytes = header.encode().to_vec();
        bytes.resize(5000, 9);
        bytes[8] = 2;
        let object = PackId(*blake3::hash(&bytes).as_bytes());
        let path = folder.path().join(pack_path(&object));
        std::fs::write(&path, &bytes).expect("written");
        let place = |object| Place { object, number: None, bytes: None, offset: 64, len: 100 };
        let newer = store.open_pack(&place(&object)).map(drop);
        assert_eq!(newer, Err(FsError::Newer(format!("packs/{object} has version 2"))));

        // The same in another pack's place: its name says that it was something else.
        let flipped = PackId([1; 32]);
        std::fs::write(folder.path().join(pack_path(&flipped)), &bytes).expect("written");
        assert!(matches!(store.open_pack(&place(&flipped)).map(drop), Err(FsError::Damaged(_))));
    }
}
