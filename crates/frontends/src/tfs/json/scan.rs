//! The first pass over a request: is it JSON, and where are the members that the request is read
//! from.
//!
//! Owns: the order in which faults are found, which is the original's, and how deep brackets may be.
//! Nothing is built: nesting costs one bit a level.
//! Invariant: a [`Document`]'s values are well-formed, so later passes need not report faults.

use super::cursor::{Cursor, Fault, SyntaxError, Text};

/// Brackets that may be open at once, those of the root among them.
const NESTING_MAX: usize = 512;

/// What kind a value is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    False,
    True,
    Object,
    Array,
    String,
    Number,
}

impl Kind {
    /// The kind's name in error texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Null => "Null",
            Kind::False => "False",
            Kind::True => "True",
            Kind::Object => "Object",
            Kind::Array => "Array",
            Kind::String => "String",
            Kind::Number => "Number",
        }
    }
}

/// The text of one well-formed value, without white space before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) text: &'a [u8],
}

impl<'a> Value<'a> {
    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        match self.text.first() {
            Some(b'n') => Kind::Null,
            Some(b'f') => Kind::False,
            Some(b't') => Kind::True,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            _ => Kind::Number,
        }
    }

    /// The string, if it is one.
    pub(crate) fn as_text(&self) -> Option<Text<'a>> {
        if self.kind() != Kind::String {
            return None;
        }
        Cursor::new(self.text).string().ok()
    }

    /// The string inside `{"b64": "..."}`, if it is such an object with no other key.
    pub(crate) fn as_base64(&self) -> Option<Text<'a>> {
        let mut cursor = Cursor::new(self.text);
        if !cursor.eat(b'{') {
            return None;
        }
        cursor.skip_space();
        if cursor.peek() != b'"' || cursor.string().ok()?.unescaped() != b"b64".as_slice() {
            return None;
        }
        cursor.skip_space();
        cursor.eat(b':');
        cursor.skip_space();
        if cursor.peek() != b'"' {
            return None;
        }
        let text = cursor.string().ok()?;
        cursor.skip_space();
        cursor.eat(b'}').then_some(text)
    }

    /// Whether it is an array without elements.
    pub(crate) fn is_empty_array(&self) -> bool {
        let mut cursor = Cursor::new(self.text);
        cursor.eat(b'[') && {
            cursor.skip_space();
            cursor.peek() == b']'
        }
    }

    /// The first element of an array, with whatever follows it: enough to tell what it is without
    /// walking through it.
    pub(crate) fn first_open(&self) -> Option<Value<'a>> {
        let mut elements = self.elements();
        elements.advance()?;
        Some(Value { text: &self.text[elements.cursor.at()..] })
    }

    /// The elements of an array; none for other kinds.
    pub(crate) fn elements(&self) -> Elements<'a> {
        Elements { cursor: Cursor::new(self.text), open: b'[' }
    }

    /// The members of an object; none for other kinds.
    pub(crate) fn members(&self) -> Members<'a> {
        Members(Elements { cursor: Cursor::new(self.text), open: b'{' })
    }
}

/// Walks the elements of an array.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    cursor: Cursor<'a>,
    /// What must come before the next element: the opening bracket, then a comma.
    open: u8,
}

impl<'a> Elements<'a> {
    /// Steps to the next element's first byte.
    fn advance(&mut self) -> Option<()> {
        self.cursor.skip_space();
        if !self.cursor.eat(self.open) {
            return None;
        }
        self.open = b',';
        self.cursor.skip_space();
        (!matches!(self.cursor.peek(), b']' | b'}' | 0)).then_some(())
    }

    fn value(&mut self) -> Option<Value<'a>> {
        let start = self.cursor.at();
        skip_value(&mut self.cursor).ok()?;
        Some(Value { text: self.cursor.since(start) })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.advance()?;
        self.value()
    }
}

/// Walks the members of an object.
#[derive(Debug)]
pub(crate) struct Members<'a>(Elements<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Text<'a>, Value<'a>);

    fn next(&mut self) -> Option<(Text<'a>, Value<'a>)> {
        self.0.advance()?;
        let cursor = &mut self.0.cursor;
        let name = cursor.string().ok()?;
        cursor.skip_space();
        cursor.eat(b':');
        cursor.skip_space();
        Some((name, self.0.value()?))
    }
}

/// A well-formed text whose root may be of any kind.
#[derive(Debug)]
pub(crate) struct Document<'a, const N: usize> {
    /// The root.
    pub(crate) root: Value<'a>,
    /// The members asked for, in the order asked for; the first of equal names counts.
    pub(crate) members: [Option<Value<'a>>; N],
}

/// Checks `json` and finds the root's members called `names`. Text after the root is ignored.
pub(crate) fn scan<'a, const N: usize>(
    json: &'a [u8],
    names: [&str; N],
) -> Result<Document<'a, N>, SyntaxError> {
    let mut cursor = Cursor::new(json);
    cursor.skip_byte_order_mark();
    cursor.skip_space();
    if matches!(cursor.peek(), 0 | b']' | b'}' | b',' | b':') {
        return Err(cursor.fault(Fault::DocumentEmpty));
    }
    let start = cursor.at();
    let mut members = [None; N];
    if cursor.eat(b'{') {
        cursor.skip_space();
        if !cursor.eat(b'}') {
            loop {
                let name = member_name(&mut cursor)?;
                let value_start = cursor.at();
                skip_value_within(&mut cursor, NESTING_MAX - 1)?;
                let text = cursor.since(value_start);
                let name = name.unescaped();
                if let Some(i) = names.iter().position(|want| want.as_bytes() == &*name) {
                    members[i].get_or_insert(Value { text });
                }
                cursor.skip_space();
                if cursor.eat(b'}') {
                    break;
                }
                if !cursor.eat(b',') {
                    return Err(cursor.fault(Fault::MemberWithoutEnd));
                }
                cursor.skip_space();
            }
        }
    } else {
        skip_value(&mut cursor)?;
    }
    Ok(Document { root: Value { text: cursor.since(start) }, members })
}

/// Steps over a member's name and colon to its value.
fn member_name<'a>(cursor: &mut Cursor<'a>) -> Result<Text<'a>, SyntaxError> {
    if cursor.peek() != b'"' {
        return Err(cursor.fault(Fault::MemberWithoutName));
    }
    let name = cursor.string()?;
    cursor.skip_space();
    if !cursor.eat(b':') {
        return Err(cursor.fault(Fault::MemberWithoutColon));
    }
    cursor.skip_space();
    Ok(name)
}

/// Steps over one value and checks it.
pub(super) fn skip_value(cursor: &mut Cursor<'_>) -> Result<(), SyntaxError> {
    skip_value_within(cursor, NESTING_MAX)
}

/// Steps over one value, whose brackets may be `nesting_max` deep, and checks it.
fn skip_value_within(cursor: &mut Cursor<'_>, nesting_max: usize) -> Result<(), SyntaxError> {
    let mut nesting = Nesting::default();
    loop {
        match cursor.peek() {
            b'[' | b'{' if nesting.depth >= nesting_max => {
                return Err(cursor.fault(Fault::TooDeep));
            }
            b'[' => {
                cursor.skip(1);
                cursor.skip_space();
                if cursor.peek() != b']' {
                    nesting.push(false);
                    continue;
                }
                cursor.skip(1);
            }
            b'{' => {
                cursor.skip(1);
                cursor.skip_space();
                if cursor.peek() != b'}' {
                    nesting.push(true);
                    member_name(cursor)?;
                    continue;
                }
                cursor.skip(1);
            }
            b'"' => {
                cursor.string()?;
            }
            b'n' => cursor.literal(b"null")?,
            b't' => cursor.literal(b"true")?,
            b'f' => cursor.literal(b"false")?,
            0 | b']' | b'}' | b',' | b':' => return Err(cursor.fault(Fault::ValueInvalid)),
            _ => {
                cursor.number()?;
            }
        }
        if !next_value(cursor, &mut nesting)? {
            return Ok(());
        }
    }
}

/// Steps from the end of a value to the next one; `false` when there is none inside `nesting`.
#[inline(always)]
fn next_value(cursor: &mut Cursor<'_>, nesting: &mut Nesting) -> Result<bool, SyntaxError> {
    while let Some(in_object) = nesting.top() {
        cursor.skip_space();
        let close = if in_object { b'}' } else { b']' };
        if cursor.eat(b',') {
            cursor.skip_space();
            if in_object {
                member_name(cursor)?;
            }
            return Ok(true);
        }
        if !cursor.eat(close) {
            let fault = if in_object { Fault::MemberWithoutEnd } else { Fault::ElementWithoutEnd };
            return Err(cursor.fault(fault));
        }
        nesting.pop();
    }
    Ok(false)
}

/// The open brackets, innermost last, one bit each: whether it is an object.
#[derive(Debug, Default)]
struct Nesting {
    /// The innermost levels, the innermost in the lowest bit.
    word: u64,
    depth: usize,
    /// Full words of outer levels.
    outer: Vec<u64>,
}

impl Nesting {
    #[inline(always)]
    fn push(&mut self, in_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.word);
        }
        self.word = self.word << 1 | u64::from(in_object);
        self.depth += 1;
    }

    #[inline(always)]
    fn pop(&mut self) {
        self.depth -= 1;
        self.word >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.word = self.outer.pop().unwrap_or(0);
        }
    }

    #[inline(always)]
    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.word & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(json: &str) -> (Fault, usize) {
        let error = scan(json.as_bytes(), []).unwrap_err();
        (error.fault, error.offset)
    }

    #[test]
    fn faults_and_offsets_are_the_originals() {
        assert_eq!(fault("   "), (Fault::DocumentEmpty, 3));
        assert_eq!(fault(" ]"), (Fault::DocumentEmpty, 1));
        assert_eq!(fault("{"), (Fault::MemberWithoutName, 1));
        assert_eq!(fault("instances"), (Fault::ValueInvalid, 0));
        assert_eq!(fault("{\"a\":1,}"), (Fault::MemberWithoutName, 7));
        assert_eq!(fault("{\"a\" 1}"), (Fault::MemberWithoutColon, 5));
        assert_eq!(fault("{\"a\":}"), (Fault::ValueInvalid, 5));
        assert_eq!(fault("{\"a\":1"), (Fault::MemberWithoutEnd, 6));
        assert_eq!(fault("{\"instances\":[1.0,]}"), (Fault::ValueInvalid, 18));
        assert_eq!(fault("{\"instances\":[01]}"), (Fault::ElementWithoutEnd, 15));
        assert_eq!(fault("{\"instances\":[nan]}"), (Fault::ValueInvalid, 15));
        assert_eq!(fault("{\"instances\":[inf]}"), (Fault::ValueInvalid, 14));
        assert_eq!(fault("{\"instances\":[1.0] /*c*/}"), (Fault::MemberWithoutEnd, 19));
        assert_eq!(fault("{\"a"), (Fault::StringWithoutEnd, 3));
        assert_eq!(fault("{\"a\\x\":1}"), (Fault::EscapeInvalid, 3));
        assert_eq!(fault("{\"\\u12g4\":1}"), (Fault::EscapeNotHex, 2));
        assert_eq!(fault("{\"\\ud800x\":1}"), (Fault::SurrogateInvalid, 2));
        assert_eq!(fault("{\"a\nb\":1}"), (Fault::EscapeInvalid, 3));
        assert_eq!(fault("[1\0,2]"), (Fault::ElementWithoutEnd, 2));
    }

    #[test]
    fn members_are_found_and_the_first_counts() {
        let json =
            b"\xEF\xBB\xBF {\"x\": [1, {\"a\": 2}], \"y\": \"q\", \"\\u0078\": 5, \"z\":{ } } junk";
        let document = scan(json, ["x", "z", "none"]).unwrap();
        assert_eq!(document.members[0].map(|value| value.text), Some(&b"[1, {\"a\": 2}]"[..]));
        assert_eq!(document.members[1].map(|value| value.kind()), Some(Kind::Object));
        assert_eq!(document.members[2], None);
        assert!(document.root.text.ends_with(b"} }"));
        let names: Vec<_> =
            document.root.members().map(|(name, _)| name.unescaped().into_owned()).collect();
        assert_eq!(names, [b"x", b"y", b"x", b"z"]);
        assert_eq!(document.members[0].unwrap().elements().count(), 2);
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(scan(deep(512).as_bytes(), []).is_ok());
        assert_eq!(fault(&deep(513)), (Fault::TooDeep, 512));
        let beside = |n: usize| format!("{{\"a\":{}}}", deep(n));
        assert!(scan(beside(511).as_bytes(), []).is_ok());
        assert_eq!(fault(&beside(512)), (Fault::TooDeep, 516));
        let mixed = "[{\"a\":".repeat(256) + "1" + &"}]".repeat(256);
        assert!(scan(mixed.as_bytes(), []).is_ok());
        assert_eq!(fault(&"[{\"a\":".repeat(70_000)), (Fault::TooDeep, 1536));
        let wrong = "[".repeat(130) + "{\"a\":1]";
        assert_eq!(fault(&wrong), (Fault::MemberWithoutEnd, 136));
        assert_eq!(fault(&"[".repeat(500_000)), (Fault::TooDeep, 512));
    }

    #[test]
    fn base64_objects_have_one_key() {
        let is = |text: &str| Value { text: text.as_bytes() }.as_base64().is_some();
        assert!(is("{ \"b64\" : \"YQ==\" }"));
        assert!(is("{\"b\\u0036\\u0034\":\"\"}"));
        assert!(!is("{\"b64\":5}"));
        assert!(!is("{\"b64\":\"\",\"b64\":\"\"}"));
        assert!(!is("{}"));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((".{0,4}", inner), 0..6)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_library_writes_is_accepted(value in json(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let document = scan(text.as_bytes(), []).unwrap();
            prop_assert_eq!(document.root.text, text.as_bytes());
            // Any cut of a document that ends in a bracket is a fault.
            if matches!(value, serde_json::Value::Array(_) | serde_json::Value::Object(_)) {
                for end in 0..text.len() {
                    prop_assert!(scan(&text.as_bytes()[..end], []).is_err());
                }
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop::sample::select(b"{}[],:\"\\u0019eNnulItrfas -.\xff\0".to_vec()), 0..64)) {
            if let Ok(document) = scan(&bytes, ["u"]) {
                document.root.elements().count();
                document.root.members().count();
                document.root.as_base64();
            }
        }
    }
}
