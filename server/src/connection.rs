//! What a worker holds for each connection, and where.

use crate::lobby::Guest;
use crate::transport::Transport;
use hikyaku_proto::broker::ConnId;

/// One connection. Idle, it holds no heap.
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    /// Set until the CONNECT is there and the home shard takes over.
    pub(crate) guest: Option<Box<Guest>>,
    /// Read, but not used by the shard: at most one read buffer, for nothing is read meanwhile.
    pub(crate) kept: Box<[u8]>,
    /// The shard wants nothing handed in.
    pub(crate) paused: bool,
    /// The transport may have bytes, as far as the events say.
    pub(crate) readable: bool,
    /// Read until nothing is there: events may have been spent on what was not read.
    pub(crate) until_empty: bool,
    /// The transport took no more; an event says when it does.
    pub(crate) full: bool,
    /// More is to be written than a turn may, though the transport takes it.
    pub(crate) unwritten: bool,
    /// It is on the worker's list of those to go on with.
    pub(crate) listed: bool,
    /// The shard has closed it; what it still sends is not looked at.
    pub(crate) leaving: bool,
}

const _: () = assert!(size_of::<Option<Connection>>() <= 48 || cfg!(debug_assertions));

impl std::fmt::Debug for Connection {
    /// Leaves what was read out, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("transport", &self.transport)
            .field("guest", &self.guest)
            .field("kept_bytes", &self.kept.len())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(transport: Transport, guest: Box<Guest>) -> Self {
        Connection {
            transport,
            guest: Some(guest),
            kept: Box::default(),
            paused: false,
            readable: false,
            until_empty: false,
            full: false,
            unwritten: false,
            listed: false,
            leaving: false,
        }
    }
}

/// Values by a dense index, the freed ones used again with another generation.
#[derive(Debug)]
pub(crate) struct Places<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Places<T> {
    pub(crate) fn new() -> Self {
        Places { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> ConnId {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.value = Some(value);
            return ConnId { index, generation: place.generation };
        }
        self.places.push(Place { generation: 0, value: Some(value) });
        ConnId { index: (self.places.len() - 1) as u32, generation: 0 }
    }

    pub(crate) fn get(&self, conn: ConnId) -> Option<&T> {
        let place = self.places.get(conn.index as usize)?;
        if place.generation == conn.generation { place.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        let place = self.places.get_mut(conn.index as usize)?;
        if place.generation == conn.generation { place.value.as_mut() } else { None }
    }

    /// Who is at this index now.
    pub(crate) fn at(&self, index: usize) -> Option<ConnId> {
        let place = self.places.get(index)?;
        place.value.as_ref()?;
        Some(ConnId { index: u32::try_from(index).ok()?, generation: place.generation })
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<T> {
        let place = self.places.get_mut(conn.index as usize)?;
        if place.generation != conn.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(conn.index);
        Some(value)
    }

    /// Everyone there is.
    pub(crate) fn all(&self) -> impl Iterator<Item = ConnId> {
        (0..self.places.len()).filter_map(|index| self.at(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_used_again_under_another_name() {
        let mut places = Places::new();
        let (a, b) = (places.insert("a"), places.insert("b"));
        assert_eq!(places.remove(a), Some("a"));
        assert_eq!(places.remove(a), None);
        assert_eq!(places.at(0), None);
        let c = places.insert("c");
        assert_eq!((c.index, places.get_mut(a)), (a.index, None));
        assert_eq!(places.get_mut(c), Some(&mut "c"));
        assert_eq!((places.all().collect::<Vec<_>>(), places.len()), (vec![c, b], 2));
    }
}
