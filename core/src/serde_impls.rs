//! Sizes and percents as numbers, names and classes as text.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Backend, Bytes, DeviceUuid, Percent, QosClass, QualifiedName};

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.get())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(u8::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// `Display` and `FromStr` as the serialised form.
macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Backend, DeviceUuid, QosClass, QualifiedName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_round_trips() {
        let uuid = DeviceUuid::from_bytes([7; 16]);
        let text = serde_json::to_string(&(
            Bytes(5),
            Percent::FULL,
            QosClass::High,
            Backend::Limiter,
            uuid,
        ))
        .unwrap();
        assert_eq!(text, format!("[5,100,\"high\",\"limiter\",\"{uuid}\"]"));
        let back: (Bytes, Percent, QosClass, Backend, DeviceUuid) =
            serde_json::from_str(&text).unwrap();
        assert_eq!(
            back,
            (
                Bytes(5),
                Percent::FULL,
                QosClass::High,
                Backend::Limiter,
                uuid
            )
        );
        assert!(serde_json::from_str::<Percent>("101").is_err());
        assert!(serde_json::from_str::<QosClass>("\"best\"").is_err());
    }
}
