//! Quality of Service.

use core::fmt;

/// How hard sender and receiver try to deliver an Application Message (section 4.3).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum QoS {
    /// QoS 0: sent once and not acknowledged; may be lost.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: acknowledged with PUBACK; may arrive more than once.
    AtLeastOnce = 1,
    /// QoS 2: acknowledged in two steps; arrives exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with this number; `None` for anything above 2.
    pub const fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> u8 {
        qos as u8
    }
}

impl fmt::Display for QoS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QoS {}", *self as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_0_1_and_2_exist() {
        for value in 0..=255 {
            assert_eq!(QoS::from_u8(value).map(u8::from), (value <= 2).then_some(value));
        }
        assert!(QoS::AtMostOnce < QoS::AtLeastOnce && QoS::AtLeastOnce < QoS::ExactlyOnce);
    }
}
