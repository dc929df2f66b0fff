//! Reads a line of JSON strictly: `serde_json` alone keeps the last of two values under one key, and its messages can
//! quote what it read.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::rows::Why;

/// A customer lies in a list of orders in a list of items: nothing is deeper.
const DEEPEST: u8 = 6;
/// No line of a sane export is longer.
const LONGEST: usize = 64 * 1024;

/// One object, with every key once.
pub fn object(line: &str) -> Result<Map<String, Value>, Why> {
    if line.len() > LONGEST {
        return Err(Why::LineTooLong);
    }
    let found = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(line);
    let read = Strict { depth: 0, found: &found }.deserialize(&mut reader);
    match read.and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Why::NoObject),
        // The error itself is dropped: only where it lies in our own list is it known to quote nothing.
        Err(error) => Err(found.get().unwrap_or(if error.is_eof() { Why::CutOff } else { Why::NoJson })),
    }
}

struct Strict<'a> {
    depth: u8,
    found: &'a Cell<Option<Why>>,
}

impl Strict<'_> {
    fn deeper<E: de::Error>(&self) -> Result<Strict<'_>, E> {
        if self.depth == DEEPEST {
            return Err(self.refuse(Why::TooDeep));
        }
        Ok(Strict { depth: self.depth.saturating_add(1), found: self.found })
    }

    fn refuse<E: de::Error>(&self, why: Why) -> E {
        self.found.set(Some(why));
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.deeper()?)?;
            if object.insert(key, value).is_some() {
                return Err(self.refuse(Why::KeyTwice));
            }
        }
        Ok(Value::Object(object))
    }
}
