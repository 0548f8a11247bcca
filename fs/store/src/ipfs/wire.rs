//! Protocol Buffers, as far as nodes and records need them: varints, and fields of bytes.

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a varint.
pub(super) fn varint_bytes(value: u64) -> u64 {
    u64::from((64 - value.leading_zeros()).max(1).div_ceil(7))
}

/// Appends a field that is a number.
pub(super) fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put_varint(out, value);
}

/// Appends a field of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes the next field with its number off a message; nothing if what is there is none.
pub(super) fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = take_varint(rest)?;
    let field = match tag & 7 {
        0 => Field::Number(take_varint(rest)?),
        2 => {
            let length = usize::try_from(take_varint(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Field::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, field))
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_come_back() {
        for value in [0, 1, 127, 128, 300, 1 << 28, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut message = Vec::new();
            put_varint(&mut message, value);
            assert_eq!(message.len() as u64, varint_bytes(value), "{value}");
            message.clear();
            put_number(&mut message, 3, value);
            put_bytes(&mut message, 4, b"bytes");
            let mut rest = &message[..];
            assert_eq!(take_field(&mut rest), Some((3, Field::Number(value))));
            assert_eq!(take_field(&mut rest), Some((4, Field::Bytes(b"bytes"))));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_field_is_refused() {
        let endless = [0xff_u8; 11];
        for bad in [
            &b""[..],
            b"\x08",
            b"\x08\x80",
            b"\x0a\x05abc",
            b"\x09",
            &endless,
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(take_field(&mut &bad[..]), None, "{bad:?}");
        }
    }
}
