//! Facility and severity: the two halves of a PRI, their names, and sets of severities.
//!
//! It does not know where a PRI stands in a message.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Largest PRI: facility 23, severity 7 (RFC 5424 §6.2.1).
pub const MAX_PRI: u8 = 191;

/// Why a text names no facility or severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// Not a severity.
    #[error(
        "read severity {text:?}; write emerg, alert, crit, err, warning, notice, info, debug or 0 to 7"
    )]
    Severity {
        /// What stood there.
        text: String,
    },
    /// Not a facility.
    #[error("read facility {text:?}; write a name such as daemon, auth or local0, or 0 to 23")]
    Facility {
        /// What stood there.
        text: String,
    },
}

macro_rules! levels {
    ($(#[$doc:meta])* $kind:ident, $error:ident { $($(#[$line:meta])* $variant:ident = $number:literal, $name:literal $(| $alias:literal)*;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $kind {
            $($(#[$line])* $variant = $number,)*
        }

        impl $kind {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the one with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }

            /// Returns its number.
            pub fn number(self) -> u8 {
                self as u8
            }

            /// Returns its name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.as_str())
            }
        }

        impl FromStr for $kind {
            type Err = LevelError;

            /// Reads a name, in any case, or a number.
            fn from_str(text: &str) -> Result<Self, LevelError> {
                let named = match text.to_ascii_lowercase().as_str() {
                    $($name $(| $alias)* => Some(Self::$variant),)*
                    digits if is_number(digits) => digits.parse().ok().and_then(Self::from_number),
                    _ => None,
                };
                named.ok_or_else(|| LevelError::$error { text: text.to_owned() })
            }
        }
    };
}

levels! {
    /// How bad it is: the smaller, the worse (RFC 5424 table 2).
    Severity, Severity {
        /// The system is unusable.
        Emergency = 0, "emerg" | "emergency" | "panic";
        /// Action must be taken at once.
        Alert = 1, "alert";
        /// Critical.
        Critical = 2, "crit" | "critical";
        /// An error.
        Error = 3, "err" | "error";
        /// A warning.
        Warning = 4, "warning" | "warn";
        /// Normal but significant.
        Notice = 5, "notice";
        /// Information.
        Informational = 6, "info" | "informational";
        /// For developers.
        Debug = 7, "debug";
    }
}

levels! {
    /// What part of a system speaks (RFC 5424 table 1).
    Facility, Facility {
        /// The kernel.
        Kernel = 0, "kern" | "kernel";
        /// Programs of users.
        User = 1, "user";
        /// Mail.
        Mail = 2, "mail";
        /// Daemons.
        Daemon = 3, "daemon";
        /// Security and authorisation.
        Auth = 4, "auth" | "security";
        /// The syslog daemon itself.
        Syslog = 5, "syslog";
        /// Printers.
        Printer = 6, "lpr";
        /// Network news.
        News = 7, "news";
        /// UUCP.
        Uucp = 8, "uucp";
        /// Scheduled commands.
        Cron = 9, "cron";
        /// Private security and authorisation.
        AuthPriv = 10, "authpriv";
        /// FTP.
        Ftp = 11, "ftp";
        /// NTP.
        Ntp = 12, "ntp";
        /// Log audit.
        Audit = 13, "audit";
        /// Log alert.
        Alarm = 14, "alert" | "console";
        /// The second clock daemon.
        Clock = 15, "clock" | "clockd" | "solaris-cron";
        /// For local use.
        Local0 = 16, "local0";
        /// For local use.
        Local1 = 17, "local1";
        /// For local use.
        Local2 = 18, "local2";
        /// For local use.
        Local3 = 19, "local3";
        /// For local use.
        Local4 = 20, "local4";
        /// For local use.
        Local5 = 21, "local5";
        /// For local use.
        Local6 = 22, "local6";
        /// For local use.
        Local7 = 23, "local7";
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Splits a PRI value into its two halves; none when it is larger than [`MAX_PRI`].
pub fn split(pri: u8) -> Option<(Facility, Severity)> {
    Some((
        Facility::from_number(pri >> 3)?,
        Severity::from_number(pri & 7)?,
    ))
}

/// Joins facility and severity to a PRI value.
pub fn join(facility: Facility, severity: Severity) -> u8 {
    facility.number() << 3 | severity.number()
}

/// A set of severities: one bit each, the bit of `emerg` is 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Severities(u8);

impl Severities {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);

    /// Returns the set with these bits.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns all severities between two, both included, whichever of them is worse.
    pub fn between(one: Severity, other: Severity) -> Self {
        let (worse, milder) = (one.min(other), one.max(other));
        Self(u8::MAX >> (7 - milder.number()) & u8::MAX << worse.number())
    }

    /// Adds the severity of this number; one beyond 7 counts as 7.
    pub fn insert(&mut self, number: u8) {
        self.0 |= 1 << number.min(7);
    }

    /// Tells whether the severity of this number is in the set.
    pub fn contains(self, number: u8) -> bool {
        self.0 & 1 << number.min(7) != 0
    }

    /// Tells whether the two have one in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Debug for Severities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08b}", self.0)
    }
}

impl FromStr for Severities {
    type Err = LevelError;

    /// Reads what `journalctl -p` reads: `err` is that and all that is worse, `warning..crit` or `2..4`
    /// is a range with both ends.
    fn from_str(text: &str) -> Result<Self, LevelError> {
        match text.split_once("..") {
            Some((from, to)) => Ok(Self::between(from.parse()?, to.parse()?)),
            None => Ok(Self::between(Severity::Emergency, text.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pri_splits_and_joins_and_larger_ones_do_not() {
        for pri in 0..=u8::MAX {
            let halves = split(pri);
            assert_eq!(halves.is_some(), pri <= MAX_PRI, "{pri}");
            if let Some((facility, severity)) = halves {
                assert_eq!(join(facility, severity), pri);
            }
        }
    }

    #[test]
    fn every_name_and_number_is_read_as_what_it_names() {
        for severity in Severity::ALL {
            assert_eq!(severity.to_string().parse(), Ok(*severity));
            assert_eq!(severity.number().to_string().parse(), Ok(*severity));
            assert_eq!(severity.as_str().to_uppercase().parse(), Ok(*severity));
        }
        for facility in Facility::ALL {
            assert_eq!(facility.to_string().parse(), Ok(*facility));
            assert_eq!(facility.number().to_string().parse(), Ok(*facility));
        }
        for text in ["", "8", "-1", "+3", "errr", "24", "256", " err"] {
            assert!(text.parse::<Severity>().is_err(), "{text:?}");
        }
        assert!("24".parse::<Facility>().is_err());
        assert_eq!("panic".parse(), Ok(Severity::Emergency));
        assert_eq!("warn".parse(), Ok(Severity::Warning));
    }

    #[test]
    fn a_set_of_severities_is_written_as_for_journalctl() {
        for (text, bits) in [
            ("err", 0b0000_1111),
            ("0", 0b0000_0001),
            ("debug", 0b1111_1111),
            ("0..3", 0b0000_1111),
            ("warning..crit", 0b0001_1100),
            ("2..4", 0b0001_1100),
            ("info..info", 0b0100_0000),
        ] {
            let set: Severities = text.parse().expect("severities");
            assert_eq!(set.bits(), bits, "{text}");
            for severity in Severity::ALL {
                let bit = bits >> severity.number() & 1 == 1;
                assert_eq!(set.contains(severity.number()), bit, "{text} {severity}");
            }
        }
        for text in ["", "..", "err..", "..err", "0..8", "a..b", "1..2..3"] {
            assert!(text.parse::<Severities>().is_err(), "{text:?}");
        }
    }
}
