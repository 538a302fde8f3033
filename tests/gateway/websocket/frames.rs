//! Valid and invalid frames from a client: RFC 6455, sections 5 to 8, in the order of Autobahn's list.

use super::raw::{BINARY, CLOSE, CONTINUATION, FIN, Length, PING, PONG, TEXT, close, frame, frame_with, head};

/// Bytes to send, each part in a separate write, and the expected outcome before the reply to a last ping command.
pub struct Case {
    pub name: String,
    pub sends: Vec<Vec<u8>>,
    pub expected: String,
}

/// A whole message, answered by "reply 5".
const COMMAND: &str = r#"{"id":5,"ping":{}}"#;
/// The setting assumed by the cases.
pub const MAX_FRAME_SIZE: usize = 65_536;

const ANSWERED: &str = "reply 5";
const GOES_ON: &str = "goes on";
const VIOLATION: &str = "close 1002, end";
const BAD_TEXT: &str = "close 1007, end";
const TOO_BIG: &str = "close 1009, end";
const BAD_REQUEST: &str = "close 3501, end";

fn case(name: impl Into<String>, sends: Vec<Vec<u8>>, expected: impl Into<String>) -> Case {
    Case { name: name.into(), sends, expected: expected.into() }
}

/// A message in fragments.
fn fragments(opcode: u8, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let last = parts.len() - 1;
    let each = parts.iter().enumerate();
    each.map(|(i, part)| frame(if i == last { FIN } else { 0 } | if i == 0 { opcode } else { CONTINUATION }, part))
        .collect()
}

/// A command, answered by "reply 5", with `bytes` inside.
fn saying(bytes: &[u8]) -> Vec<u8> {
    [br#"{"id":5,"rpc":{"method":""#, bytes, br#""}}"#].concat()
}

pub fn all() -> Vec<Case> {
    [messages(), lengths(), pings(), reserved(), fragmentation(), text(), closing(), masks()]
        .into_iter()
        .flatten()
        .collect()
}

fn messages() -> Vec<Case> {
    let whole = frame(FIN | TEXT, COMMAND);
    let one_byte_each = whole.iter().map(|byte| vec![*byte]).collect();
    vec![
        case("a message", vec![whole.clone()], ANSWERED),
        case("a message, byte by byte", one_byte_each, ANSWERED),
        case("two messages in one write", vec![[whole.clone(), whole].concat()], "reply 5, reply 5"),
        case("an empty text", vec![frame(FIN | TEXT, "")], GOES_ON),
        case("text of white space", vec![frame(FIN | TEXT, " \n")], GOES_ON),
        case("binary", vec![frame(FIN | BINARY, COMMAND)], BAD_REQUEST),
        case("empty binary", vec![frame(FIN | BINARY, "")], BAD_REQUEST),
        case("binary in fragments", fragments(BINARY, &[b"{", b"}"]), BAD_REQUEST),
        case("text that is not JSON", vec![frame(FIN | TEXT, "hello")], BAD_REQUEST),
    ]
}

fn lengths() -> Vec<Case> {
    let padded = |length: usize| format!("{COMMAND}{}", " ".repeat(length - COMMAND.len()));
    let mut cases: Vec<Case> = [125, 126, 127, 128, 65_535, MAX_FRAME_SIZE]
        .map(|length| case(format!("text of {length} bytes"), vec![frame(FIN | TEXT, padded(length))], ANSWERED))
        .into();
    let text = COMMAND.as_bytes();
    let announced = |length: u64| vec![head(FIN | TEXT, Length::In64Bits, Some([0; 4]), length)];
    let key = Some([1, 2, 3, 4]);
    cases.extend([
        case("text of 65537 bytes", vec![frame(FIN | TEXT, padded(MAX_FRAME_SIZE + 1))], TOO_BIG),
        case("65537 bytes announced", announced(MAX_FRAME_SIZE as u64 + 1), TOO_BIG),
        case("2^40 bytes announced", announced(1 << 40), TOO_BIG),
        case("2^63 - 1 bytes announced", announced(i64::MAX as u64), TOO_BIG),
        case("a length with its top bit set", announced(1 << 63), TOO_BIG),
        case("a length of all ones", announced(u64::MAX), TOO_BIG),
        case(
            "a control frame of 2^40 bytes announced",
            vec![head(FIN | PING, Length::In64Bits, key, 1 << 40)],
            TOO_BIG,
        ),
        case("18 bytes, their length in 16 bits", vec![frame_with(FIN | TEXT, Length::In16Bits, key, text)], ANSWERED),
        case("18 bytes, their length in 64 bits", vec![frame_with(FIN | TEXT, Length::In64Bits, key, text)], ANSWERED),
    ]);
    cases
}

fn pings() -> Vec<Case> {
    vec![
        case("a ping", vec![frame(FIN | PING, "")], r#"pong """#),
        case("a ping with a payload", vec![frame(FIN | PING, "abc")], r#"pong "abc""#),
        case("a ping of bytes that are no text", vec![frame(FIN | PING, [0xff])], "pong \"\u{fffd}\""),
        case("a ping of 125 bytes", vec![frame(FIN | PING, [b'x'; 125])], "pong of 125 bytes"),
        case("a ping of 126 bytes", vec![frame(FIN | PING, [b'x'; 126])], VIOLATION),
        case("a ping, byte by byte", frame(FIN | PING, "abc").iter().map(|b| vec![*b]).collect(), r#"pong "abc""#),
        case("a pong that nobody asked for", vec![frame(FIN | PONG, "abc")], GOES_ON),
        case("a pong of 126 bytes", vec![frame(FIN | PONG, [b'x'; 126])], VIOLATION),
        case("pongs, then a ping", vec![frame(FIN | PONG, ""), frame(FIN | PING, "a")], r#"pong "a""#),
    ]
}

fn reserved() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..=7u8 {
        let first = FIN | bits << 4;
        cases.push(case(format!("reserved bits {bits:03b}, text"), vec![frame(first | TEXT, COMMAND)], VIOLATION));
    }
    cases.push(case("a reserved bit, ping", vec![frame(FIN | 0x40 | PING, "")], VIOLATION));
    cases.push(case("a reserved bit, close", vec![frame(FIN | 0x20 | CLOSE, "")], VIOLATION));
    let on_a_fragment = vec![frame(TEXT, "{"), frame(FIN | 0x40, "}")];
    cases.push(case("a reserved bit on a continuation", on_a_fragment, VIOLATION));
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(case(format!("opcode {opcode}"), vec![frame(FIN | opcode, "x")], VIOLATION));
    }
    cases.push(case("opcode 3, empty and not final", vec![frame(3, "")], VIOLATION));
    let before = vec![[frame(FIN | TEXT, COMMAND), frame(FIN | 3, "")].concat()];
    cases.push(case("a message, then opcode 3", before, format!("{ANSWERED}, {VIOLATION}")));
    cases
}

fn fragmentation() -> Vec<Case> {
    let text = COMMAND.as_bytes();
    let (one, two) = text.split_at(7);
    let each: Vec<&[u8]> = text.chunks(1).collect();
    let with_empty: Vec<&[u8]> = each.iter().flat_map(|byte| [&b""[..], byte]).collect();
    let between = |control: Vec<u8>| vec![frame(TEXT, one), control, frame(FIN, two)];
    let mut many_empty = vec![frame(TEXT, text), frame(CONTINUATION, "").repeat(10_000)];
    many_empty.push(frame(FIN, ""));
    let sixteenth = vec![b' '; MAX_FRAME_SIZE / 16];
    let parts = |count: usize| fragments(TEXT, &[vec![text], vec![&sixteenth[..]; count]].concat());
    let endless = [vec![frame(TEXT, "{")], vec![frame(CONTINUATION, &sixteenth); 17]].concat();
    vec![
        case("two fragments", fragments(TEXT, &[one, two]), ANSWERED),
        case("two fragments in one write", vec![fragments(TEXT, &[one, two]).concat()], ANSWERED),
        case("a fragment for each byte", fragments(TEXT, &each), ANSWERED),
        case("an empty fragment before each byte", fragments(TEXT, &with_empty), ANSWERED),
        case("the first and the last fragment empty", fragments(TEXT, &[b"", text, b""]), ANSWERED),
        case("nothing but empty fragments", fragments(TEXT, &[b"", b"", b""]), GOES_ON),
        case("ten thousand empty fragments", many_empty, ANSWERED),
        case("a ping between fragments", between(frame(FIN | PING, "a")), format!(r#"pong "a", {ANSWERED}"#)),
        case("a pong between fragments", between(frame(FIN | PONG, "a")), ANSWERED),
        case("a close between fragments", between(close(1000, "")), "close 1000, end"),
        case("a ping in fragments", vec![frame(PING, "a"), frame(FIN, "b")], VIOLATION),
        case("a pong in fragments", vec![frame(PONG, "a"), frame(FIN, "b")], VIOLATION),
        case("a close in fragments", vec![frame(CLOSE, [3]), frame(FIN, [0xe8])], VIOLATION),
        case("a continuation of nothing", vec![frame(FIN, COMMAND)], VIOLATION),
        case("a continuation of nothing, not final", vec![frame(CONTINUATION, COMMAND)], VIOLATION),
        case(
            "a continuation behind a whole message",
            vec![frame(FIN | TEXT, COMMAND), frame(FIN, "")],
            format!("{ANSWERED}, {VIOLATION}"),
        ),
        case("a message within a message", vec![frame(TEXT, one), frame(FIN | TEXT, COMMAND)], VIOLATION),
        case("a message begun within a message", vec![frame(TEXT, one), frame(TEXT, two)], VIOLATION),
        case("binary within a text", vec![frame(TEXT, one), frame(FIN | BINARY, two)], VIOLATION),
        case("fragments of 61458 bytes together", parts(15), ANSWERED),
        case("fragments of 65554 bytes together", parts(16), TOO_BIG),
        case("fragments without an end", endless, TOO_BIG),
    ]
}

fn text() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, good) in [
        ("text of two, three and four bytes a character", "κόσμε €🦀".as_bytes()),
        ("the first characters of each length", "\u{80}\u{800}\u{10000}".as_bytes()),
        ("the last characters of each length", "\u{7f}\u{7ff}\u{ffff}\u{10ffff}".as_bytes()),
        ("characters beside the surrogates", "\u{d7ff}\u{e000}".as_bytes()),
        ("characters that are none, byte order mark", "\u{fffe}\u{feff}\u{1fffe}".as_bytes()),
    ] {
        let said = saying(good);
        let each: Vec<&[u8]> = said.chunks(1).collect();
        cases.push(case(name, vec![frame(FIN | TEXT, &said)], ANSWERED));
        cases.push(case(format!("{name}, a fragment for each byte"), fragments(TEXT, &each), ANSWERED));
    }
    for (name, bad) in [
        ("a continuation byte alone", &b"\x80"[..]),
        ("the byte 0xFF", b"\xff"),
        ("over-long, two bytes", b"\xc0\xaf"),
        ("over-long, three bytes", b"\xe0\x80\xaf"),
        ("over-long, four bytes", b"\xf0\x80\x80\xaf"),
        ("half of a surrogate pair", b"\xed\xa0\x80"),
        ("a surrogate pair", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("above U+10FFFF", b"\xf4\x90\x80\x80"),
        ("five bytes a character", b"\xf8\x88\x80\x80\x80"),
        ("a character cut off by another", b"\xe2\x82x"),
    ] {
        let said = saying(bad);
        let each: Vec<&[u8]> = said.chunks(1).collect();
        cases.push(case(name, vec![frame(FIN | TEXT, &said)], BAD_TEXT));
        cases.push(case(format!("{name}, a fragment for each byte"), fragments(TEXT, &each), BAD_TEXT));
        cases.push(case(format!("{name}, in a first fragment"), vec![frame(TEXT, &said)], BAD_TEXT));
    }
    let cut = b"{\"id\":5,\"rpc\":{\"method\":\"\xe2\x82";
    cases.extend([
        case("cut off in a character", vec![frame(FIN | TEXT, cut)], BAD_TEXT),
        case("cut off in a character, the last fragment empty", fragments(TEXT, &[cut, b""]), BAD_TEXT),
        case(
            "cut off in a character, a ping behind it",
            vec![frame(TEXT, cut), frame(FIN | PING, "a"), frame(FIN, "")],
            format!(r#"pong "a", {BAD_TEXT}"#),
        ),
        case("binary that is no text", vec![frame(FIN | BINARY, b"\xff")], BAD_REQUEST),
    ]);
    cases
}

fn closing() -> Vec<Case> {
    let echoed = |code: u16| format!("close {code}, end");
    let mut cases = vec![
        case("close", vec![frame(FIN | CLOSE, "")], "close without a code, end"),
        case("close, one byte", vec![frame(FIN | CLOSE, [3])], VIOLATION),
        case("close, a reason", vec![close(1000, "bye, κόσμε")], echoed(1000)),
        case("close, a reason of 123 bytes", vec![close(1000, [b'x'; 123])], echoed(1000)),
        case("close, a reason of 124 bytes", vec![close(1000, [b'x'; 124])], VIOLATION),
        case("close, a reason that is not UTF-8", vec![close(1000, b"\xce\xba\xff")], BAD_TEXT),
        case("close, a reason cut off in a character", vec![close(1000, b"\xe2\x82")], BAD_TEXT),
        case("close, then a message", vec![close(1000, ""), frame(FIN | TEXT, COMMAND)], echoed(1000)),
        case("close, then a ping", vec![[close(1000, ""), frame(FIN | PING, "a")].concat()], echoed(1000)),
        case("close, then close", vec![[close(1000, ""), close(1001, "")].concat()], echoed(1000)),
        case("close, then nonsense", vec![[close(1000, ""), vec![0xff; 1000]].concat()], echoed(1000)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3501, 3999, 4000, 4999] {
        cases.push(case(format!("close {code}"), vec![close(code, "")], echoed(code)));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(format!("close {code}, which nobody may send"), vec![close(code, "")], VIOLATION));
    }
    cases
}

fn masks() -> Vec<Case> {
    let unmasked = |first, payload: &[u8]| vec![frame_with(first, Length::Shortest, None, payload)];
    vec![
        case(
            "masked with zeros",
            vec![frame_with(FIN | TEXT, Length::Shortest, Some([0; 4]), COMMAND.as_bytes())],
            ANSWERED,
        ),
        case("text that is not masked", unmasked(FIN | TEXT, COMMAND.as_bytes()), VIOLATION),
        case("a ping that is not masked", unmasked(FIN | PING, b"a"), VIOLATION),
        case("a close that is not masked", unmasked(FIN | CLOSE, &1000u16.to_be_bytes()), VIOLATION),
        case(
            "a continuation that is not masked",
            vec![frame(TEXT, "{"), frame_with(FIN, Length::Shortest, None, b"}")],
            VIOLATION,
        ),
    ]
}
