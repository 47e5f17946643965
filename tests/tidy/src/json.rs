//! Just enough JSON to read `cargo metadata`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// A JSON value; numbers, booleans and null carry nothing that is asked for.
pub(crate) enum Value {
    Object(BTreeMap<String, Self>),
    Array(Vec<Self>),
    Text(String),
    Other,
}

impl Value {
    /// Parses a document.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        value(&mut text.chars().peekable())
    }

    /// The member `key` of an object.
    pub(crate) fn get(&self, key: &str) -> &Self {
        match self {
            Self::Object(members) => members.get(key).unwrap_or(&Self::Other),
            _ => &Self::Other,
        }
    }

    /// The items of an array.
    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }
}

fn value(chars: &mut Peekable<Chars<'_>>) -> Option<Value> {
    skip_space(chars);
    match chars.peek()? {
        '{' => object(chars),
        '[' => array(chars),
        '"' => string(chars).map(Value::Text),
        _ => {
            while chars.next_if(|c| !matches!(c, ',' | ']' | '}')).is_some() {}
            Some(Value::Other)
        }
    }
}

fn object(chars: &mut Peekable<Chars<'_>>) -> Option<Value> {
    let mut members = BTreeMap::new();
    chars.next();
    loop {
        skip_space(chars);
        match chars.peek()? {
            '}' => {
                chars.next();
                return Some(Value::Object(members));
            }
            ',' => {
                chars.next();
            }
            _ => {
                let key = string(chars)?;
                skip_space(chars);
                chars.next_if_eq(&':')?;
                members.insert(key, value(chars)?);
            }
        }
    }
}

fn array(chars: &mut Peekable<Chars<'_>>) -> Option<Value> {
    let mut items = Vec::new();
    chars.next();
    loop {
        skip_space(chars);
        match chars.peek()? {
            ']' => {
                chars.next();
                return Some(Value::Array(items));
            }
            ',' => {
                chars.next();
            }
            _ => items.push(value(chars)?),
        }
    }
}

fn string(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    chars.next_if_eq(&'"')?;
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?).unwrap_or('?')
                }
                other => other,
            }),
            other => text.push(other),
        }
    }
}

fn skip_space(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| c.is_whitespace()).is_some() {}
}
