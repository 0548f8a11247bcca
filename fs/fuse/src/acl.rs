//! POSIX access control lists: their bytes and their arithmetic.
//!
//! The kernel checks permissions; what an ACL does to the mode, and a mode to an ACL, is
//! the server's part. Pure: values in, values out.
//!
//! Invariants
//! - An [`Acl`] is valid: the owner's, group's and others' entries are there exactly once, in the
//!   order of the kernel, and with a mask if a user or group is named.
//! - The file's mode shows the ACL: owner, mask (or group, without a mask), others.

/// Attribute of the list that governs access.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute of the list that new files in a directory begin with.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// An entry that names nobody carries this id.
const NOBODY: u32 = u32::MAX;

/// Whom an entry speaks of. The order is the kernel's, and so is each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Others = 0x20,
}

impl Tag {
    fn from_u16(value: u16) -> Option<Self> {
        Some(match value {
            0x01 => Self::Owner,
            0x02 => Self::User,
            0x04 => Self::OwningGroup,
            0x08 => Self::Group,
            0x10 => Self::Mask,
            0x20 => Self::Others,
            _ => return None,
        })
    }

    fn names_somebody(self) -> bool {
        matches!(self, Self::User | Self::Group)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// Bits 0o7: read, write, execute.
    permissions: u16,
    id: u32,
}

/// A valid access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl {
    entries: Vec<Entry>,
}

/// The bytes are not a valid list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a new file gets from its directory's default list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Its permission bits, with set-user-ID and the like as they were asked for.
    pub(crate) mode: u16,
    /// Its own list, unless the mode says it all.
    pub(crate) access: Option<Acl>,
}

impl Acl {
    /// Reads the kernel's bytes. A list without entries is `None`: it asks for removal.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed)?;
        let (chunks, rest) = body.as_chunks::<ENTRY_BYTES>();
        if u32::from_le_bytes(*header) != VERSION || !rest.is_empty() {
            return Err(Malformed);
        }
        if chunks.is_empty() {
            return Ok(None);
        }
        let entries = chunks.iter().map(Entry::parse).collect::<Result<Vec<_>, _>>()?;
        check(&entries)?;
        Ok(Some(Self { entries }))
    }

    /// The kernel's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.entries.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.entries {
            bytes.extend_from_slice(&(entry.tag as u16).to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    /// The nine permission bits that show this list in a mode.
    pub(crate) fn mode_bits(&self) -> u16 {
        self.of(Tag::Owner) << 6 | self.of(self.group_class()) << 3 | self.of(Tag::Others)
    }

    /// Whether the mode alone says all that the list says.
    pub(crate) fn is_just_a_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The list after `chmod` to `mode`.
    pub(crate) fn with_mode(mut self, mode: u16) -> Self {
        self.set(Tag::Owner, mode >> 6);
        self.set(self.group_class(), mode >> 3);
        self.set(Tag::Others, mode);
        self
    }

    /// What a file made with `mode` gets from this default list, in place of the umask.
    pub(crate) fn inherit(&self, mode: u16) -> Inherited {
        let mut access = self.clone();
        let group_class = self.group_class();
        // No entry may grant what the maker did not ask for.
        access.set(Tag::Owner, self.of(Tag::Owner) & mode >> 6);
        access.set(group_class, self.of(group_class) & mode >> 3);
        access.set(Tag::Others, self.of(Tag::Others) & mode);
        let mode = mode & !0o777 | access.mode_bits();
        let access = (!access.is_just_a_mode()).then_some(access);
        Inherited { mode, access }
    }

    /// The entry that the mode's group bits stand for.
    fn group_class(&self) -> Tag {
        if self.entries.iter().any(|entry| entry.tag == Tag::Mask) { Tag::Mask } else { Tag::OwningGroup }
    }

    fn of(&self, tag: Tag) -> u16 {
        self.entries.iter().find(|entry| entry.tag == tag).map_or(0, |entry| entry.permissions)
    }

    fn set(&mut self, tag: Tag, permissions: u16) {
        for entry in self.entries.iter_mut().filter(|entry| entry.tag == tag) {
            entry.permissions = permissions & 0o7;
        }
    }
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Result<Self, Malformed> {
        let [t0, t1, p0, p1, i0, i1, i2, i3] = *bytes;
        let tag = Tag::from_u16(u16::from_le_bytes([t0, t1])).ok_or(Malformed)?;
        let permissions = u16::from_le_bytes([p0, p1]);
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        if permissions > 0o7 || (tag.names_somebody() && id == NOBODY) {
            return Err(Malformed);
        }
        Ok(Self { tag, permissions, id: if tag.names_somebody() { id } else { NOBODY } })
    }
}

/// The kernel's rules for a whole list.
fn check(entries: &[Entry]) -> Result<(), Malformed> {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let ordered = entries.is_sorted_by_key(|entry| entry.tag);
    let complete = [Tag::Owner, Tag::OwningGroup, Tag::Others].into_iter().all(|tag| count(tag) == 1);
    let names_somebody = entries.iter().any(|entry| entry.tag.names_somebody());
    let masked = count(Tag::Mask) == 1 || (count(Tag::Mask) == 0 && !names_somebody);
    if ordered && complete && masked { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `u::rwx,u:7:r--,g::r-x,m::rw-,o::---` as the kernel's bytes.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let parts: Vec<&str> = entry.split(':').collect();
            let tag: u16 = match (parts[0], parts[1]) {
                ("u", "") => 0x01,
                ("u", _) => 0x02,
                ("g", "") => 0x04,
                ("g", _) => 0x08,
                ("m", _) => 0x10,
                ("o", _) => 0x20,
                other => panic!("no such tag: {other:?}"),
            };
            let permissions =
                parts[2].bytes().fold(0_u16, |bits, letter| bits << 1 | u16::from(letter != b'-'));
            let id: u32 = parts[1].parse().unwrap_or(NOBODY);
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&permissions.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    fn acl(text: &str) -> Acl {
        Acl::parse(&bytes(text)).expect("valid").expect("not empty")
    }

    #[test]
    fn a_list_keeps_its_bytes() {
        for text in ["u::rwx,g::r-x,o::---", "u::rwx,u:7:rw-,u:9:---,g::r-x,g:3:rwx,m::rwx,o::r--"] {
            assert_eq!(acl(text).to_bytes(), bytes(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let refused = [
            ("no others", "u::rwx,g::r-x"),
            ("a name without a mask", "u::rwx,u:7:rw-,g::r-x,o::r--"),
            ("two masks", "u::rwx,g::r-x,m::rwx,m::rwx,o::r--"),
            ("two owners", "u::rwx,u::rwx,g::r-x,o::r--"),
            ("the wrong order", "g::r-x,u::rwx,o::r--"),
        ];
        for (why, text) in refused {
            assert_eq!(Acl::parse(&bytes(text)), Err(Malformed), "{why}");
        }
        let good = bytes("u::rwx,g::r-x,o::---");
        assert_eq!(Acl::parse(&good[..good.len() - 1]), Err(Malformed), "a cut entry");
        assert_eq!(Acl::parse(&[]), Err(Malformed), "no header");
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Malformed), "another version");
        let mut bits = good.clone();
        bits[6] = 0o10;
        assert_eq!(Acl::parse(&bits), Err(Malformed), "unknown permissions");
        let mut tag = good;
        tag[4] = 0x40;
        assert_eq!(Acl::parse(&tag), Err(Malformed), "unknown tag");
    }

    #[test]
    fn a_list_without_entries_asks_for_removal() {
        assert_eq!(Acl::parse(&bytes("")), Ok(None));
    }

    #[test]
    fn the_mode_shows_the_mask_where_there_is_one() {
        let table = [
            ("u::rwx,g::r-x,o::---", 0o750, true),
            ("u::rw-,u:7:rwx,g::r--,m::rwx,o::r--", 0o674, false),
            ("u::rw-,g::rwx,m::---,o::r--", 0o604, false),
        ];
        for (text, mode, is_just_a_mode) in table {
            assert_eq!(acl(text).mode_bits(), mode, "{text}");
            assert_eq!(acl(text).is_just_a_mode(), is_just_a_mode, "{text}");
        }
    }

    #[test]
    fn chmod_changes_the_mask_and_leaves_names_alone() {
        let table = [
            ("u::rwx,g::rwx,o::rwx", 0o640, "u::rw-,g::r--,o::---"),
            ("u::rwx,u:7:rwx,g::rwx,m::rwx,o::rwx", 0o640, "u::rw-,u:7:rwx,g::rwx,m::r--,o::---"),
        ];
        for (before, mode, after) in table {
            assert_eq!(acl(before).with_mode(mode), acl(after), "{before} to {mode:o}");
        }
    }

    #[test]
    fn a_new_file_gets_no_more_than_it_asked_for() {
        let table = [
            // default list, mode asked for, mode given, access list
            ("u::rwx,g::r-x,o::---", 0o666, 0o640, None),
            ("u::rwx,g::rwx,o::rwx", 0o4755, 0o4755, None),
            (
                "u::rwx,u:7:rwx,g::r-x,m::rwx,o::---",
                0o666,
                0o660,
                Some("u::rw-,u:7:rwx,g::r-x,m::rw-,o::---"),
            ),
            (
                "u::rwx,u:7:rwx,g::r-x,m::r-x,o::r-x",
                0o700,
                0o700,
                Some("u::rwx,u:7:rwx,g::r-x,m::---,o::---"),
            ),
        ];
        for (default, asked, mode, access) in table {
            let expected = Inherited { mode, access: access.map(acl) };
            assert_eq!(acl(default).inherit(asked), expected, "{default} with {asked:o}");
        }
    }
}
