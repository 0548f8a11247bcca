//! Extended attributes: whose names are taken, and how a value fits the caller's buffer.

use fs_volume::XattrMode;
use fuser::{Errno, ReplyXattr};

use crate::acl;
use crate::errno::Refusal;

/// What an attribute's name means to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// Bytes that the engine keeps for somebody.
    Plain,
    /// The ACL that governs access.
    AccessAcl,
    /// The ACL that new files begin with.
    DefaultAcl,
}

/// Sorts a name; those outside of the namespaces that Linux filesystems share are EOPNOTSUPP.
pub(crate) fn classify(name: &[u8], acls: bool) -> Result<Name, Refusal> {
    match name {
        acl::ACCESS if acls => return Ok(Name::AccessAcl),
        acl::DEFAULT if acls => return Ok(Name::DefaultAcl),
        _ => {}
    }
    let prefixes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match prefixes.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
        Some(b"") => Err(Errno::EINVAL.into()),
        Some(_) => Ok(Name::Plain),
        None => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// Reads the flags of `setxattr`.
pub(crate) fn mode(flags: i32) -> Result<XattrMode, Refusal> {
    match flags {
        0 => Ok(XattrMode::Set),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The answer to `listxattr`: each name with a NUL behind it.
///
/// `trusted.` is root's: nobody else may know of it. ACLs are shown where they are in force.
pub(crate) fn list(names: &[Vec<u8>], uid: u32, acls: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        let hidden = (uid != 0 && name.starts_with(b"trusted.")) || classify(name, acls).is_err();
        if !hidden {
            list.extend_from_slice(name);
            list.push(0);
        }
    }
    list
}

/// Answers with a value, or with its size when the caller's buffer is 0 bytes.
pub(crate) fn answer(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Refusal>) {
    match value {
        Err(refusal) => reply.error(refusal.0),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_namespaces_are_taken() {
        let table: [(&[u8], Option<Name>); 8] = [
            (b"user.a", Some(Name::Plain)),
            (b"trusted.overlay.opaque", Some(Name::Plain)),
            (b"security.capability", Some(Name::Plain)),
            (b"system.posix_acl_access", Some(Name::AccessAcl)),
            (b"system.posix_acl_default", Some(Name::DefaultAcl)),
            (b"system.other", None),
            (b"user.", None),
            (b"plain", None),
        ];
        for (name, expected) in table {
            assert_eq!(classify(name, true).ok(), expected, "{}", String::from_utf8_lossy(name));
        }
        assert!(classify(acl::ACCESS, false).is_err(), "without ACLs their attributes are not there");
    }

    #[test]
    fn a_list_hides_what_is_not_the_callers() {
        let names = [b"user.a".to_vec(), b"trusted.b".to_vec(), acl::ACCESS.to_vec()];
        assert_eq!(list(&names, 0, true), b"user.a\0trusted.b\0system.posix_acl_access\0");
        assert_eq!(list(&names, 1000, true), b"user.a\0system.posix_acl_access\0");
        assert_eq!(list(&names, 1000, false), b"user.a\0");
    }
}
