//! Mount points: what stands before the topics of a listener's clients, for everyone but them.
//!
//! A topic gets its mount point where it comes in, before rights are asked, and loses it where it is written
//! to a client. All in between knows mounted topics only.

use crate::topic::TopicFilter;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;

/// The mount point of a connection, if its listener has one.
#[derive(Clone, Debug, Default)]
pub(super) struct Mount(Option<Arc<str>>);

impl Mount {
    pub fn new(point: Option<Arc<str>>) -> Self {
        Mount(point.filter(|p| !p.is_empty()))
    }

    /// Whether there is none: topics are what the client says.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The topic for everyone else.
    pub fn topic(&self, topic: &str) -> String {
        let mut mounted = String::from(self.0.as_deref().unwrap_or_default());
        mounted.push_str(topic);
        mounted
    }

    /// The filter for everyone else: the name of a share group stays in front.
    pub fn filter<'a>(&self, filter: &TopicFilter<'a>) -> Cow<'a, str> {
        let (whole, inner) = (filter.as_str(), filter.filter());
        let Some(point) = &self.0 else { return Cow::Borrowed(whole) };
        let mut mounted = String::from(&whole[..whole.len() - inner.len()]);
        mounted.push_str(point);
        mounted.push_str(inner);
        Cow::Owned(mounted)
    }

    /// The topic for the client; `None` if the client has no name for it.
    pub fn strip<'a>(&self, topic: &'a [u8]) -> Option<&'a [u8]> {
        match &self.0 {
            None => Some(topic),
            Some(point) => topic.strip_prefix(point.as_bytes()).filter(|rest| !rest.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_on_comes_off() {
        let mount = Mount::new(Some("a/".into()));
        assert_eq!(mount.topic("b"), "a/b");
        assert_eq!(mount.filter(&TopicFilter::parse("$share/g/#").unwrap()), "$share/g/a/#");
        assert_eq!(mount.filter(&TopicFilter::parse("+").unwrap()), "a/+");
        assert_eq!(mount.strip(b"a/b"), Some(&b"b"[..]));
        assert_eq!((mount.strip(b"a/"), mount.strip(b"b")), (None, None));
        assert!(Mount::new(Some("".into())).is_none());
    }
}
