//! Who is in a conference, and what each takes of the quota.

use std::rc::Rc;

use ringbridge_media::id::{ConferenceId, ConnectionId};

use super::Registry;
use crate::quota::{Class, Denied, Quota, Units};

/// A connection in a conference, or about to join.
#[derive(Debug)]
pub(super) struct Member {
    join: u64,
    pub(super) connection: ConnectionId,
    pub(super) monitor: bool,
    /// What it takes of the class `conference`, which all monitors share; none in a hairpin.
    unit: Option<Rc<Units>>,
    pub(super) live: bool,
}

impl Registry {
    /// Notes a connection that is about to join, with what it takes. Not counted as a member until
    /// [`confirm_member`](Self::confirm_member); given back by [`remove_member`](Self::remove_member).
    pub fn add_member(
        &mut self,
        conference: ConferenceId,
        connection: ConnectionId,
        monitor: bool,
        unit: Option<Rc<Units>>,
    ) -> u64 {
        let join = self.joins;
        self.joins += 1;
        let Some(entry) = self.any_conference(conference) else { return join };
        entry.members.push(Member { join, connection, monitor, unit, live: false });
        if let Some(entry) = self.any_connection(connection) {
            entry.conferences.push(conference);
        }
        join
    }

    /// What one more member takes of the class `conference`; nothing in a hairpin, and monitors share a unit.
    ///
    /// # Errors
    /// None is free.
    pub fn member_unit(
        &self,
        conference: ConferenceId,
        monitor: bool,
        quota: &Quota,
    ) -> Result<Option<Rc<Units>>, Denied> {
        let Some(entry) = self.conference(conference).filter(|entry| !entry.hairpin) else { return Ok(None) };
        let mut monitors = entry.members.iter().filter(|member| monitor && member.monitor);
        if let Some(shared) = monitors.find_map(|member| member.unit.clone()) {
            return Ok(Some(shared));
        }
        Ok(Some(Rc::new(quota.try_take(Class::Conference)?)))
    }

    /// A connection has joined.
    pub fn confirm_member(&mut self, conference: ConferenceId, join: u64) {
        let Some(entry) = self.any_conference(conference) else { return };
        if let Some(member) = entry.members.iter_mut().find(|member| member.join == join) {
            member.live = true;
            entry.deserted &= member.monitor;
        }
    }

    /// A connection has not joined.
    pub fn remove_member(&mut self, conference: ConferenceId, join: u64) {
        self.retain_members(conference, |member| member.join != join);
    }

    /// A connection has left. One that is about to join again stays.
    pub fn member_left(&mut self, conference: ConferenceId, connection: ConnectionId) {
        self.retain_members(conference, |member| member.connection != connection || !member.live);
    }

    /// A conference is as good as gone: all units of its members are given back.
    pub fn empty_conference(&mut self, conference: ConferenceId) {
        if let Some(entry) = self.any_conference(conference) {
            entry.ending = true;
        }
        self.retain_members(conference, |_| false);
        if let Some(entry) = self.any_conference(conference) {
            entry.mix = None;
        }
    }

    /// Takes what the members of a hairpin need once it is a mixed conference, and a newcomer who may be a monitor: all
    /// at once or nothing. Returns what the newcomer takes. [`end_promotion`](Self::end_promotion) says what came of it.
    ///
    /// # Errors
    /// Not as many units are free.
    pub fn begin_promotion(
        &mut self,
        conference: ConferenceId,
        quota: &Quota,
        newcomer: Option<bool>,
    ) -> Result<Option<Rc<Units>>, Denied> {
        let Some(entry) = self.any_conference(conference) else { return Ok(None) };
        let mix = quota.try_take_mix()?;
        let all = || entry.members.iter().map(|member| member.monitor).chain(newcomer);
        let monitors = all().any(|monitor| monitor);
        let parties = all().filter(|monitor| !monitor).count() + usize::from(monitors);
        let needed = u32::try_from(parties).unwrap_or(u32::MAX);
        let mut units = quota.try_take_many(Class::Conference, needed)?;
        let shared = if monitors { units.split_one().map(Rc::new) } else { None };
        let mut unit = |monitor| if monitor { shared.clone() } else { units.split_one().map(Rc::new) };
        for member in &mut entry.members {
            member.unit = unit(member.monitor);
        }
        entry.mix = Some(mix);
        Ok(newcomer.and_then(unit))
    }

    /// A hairpin has been promoted, or stays one and its members need nothing.
    pub fn end_promotion(&mut self, conference: ConferenceId, promoted: bool) {
        let Some(entry) = self.any_conference(conference) else { return };
        if promoted {
            entry.hairpin = false;
            return;
        }
        entry.mix = None;
        for member in &mut entry.members {
            member.unit = None;
        }
    }

    fn retain_members(&mut self, conference: ConferenceId, keep: impl Fn(&Member) -> bool) {
        let Some(entry) = self.any_conference(conference) else { return };
        let gone: Vec<_> = entry.members.extract_if(.., |member| !keep(member)).collect();
        self.note_gone(conference, &gone);
        for member in gone {
            self.forget_membership(conference, member.connection);
        }
    }

    pub(super) fn forget_membership(&mut self, conference: ConferenceId, connection: ConnectionId) {
        let Some(entry) = self.any_connection(connection) else { return };
        if let Some(place) = entry.conferences.iter().position(|other| *other == conference) {
            entry.conferences.swap_remove(place);
        }
    }
}
