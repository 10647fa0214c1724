CREATE TABLE users (
    name          TEXT NOT NULL PRIMARY KEY,
    password_hash TEXT NOT NULL,    -- Argon2id, as a PHC string
    display_name  TEXT NOT NULL,
    extension     TEXT UNIQUE,      -- the number of the user's telephone
    station       TEXT,             -- the station the user sits at unless another is named
    time_zone     TEXT,             -- IANA name for times shown to this user; NULL: UTC
    roles         TEXT NOT NULL,    -- JSON array: admin, icws, verba
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE agents (
    work_number         INTEGER NOT NULL PRIMARY KEY CHECK (work_number BETWEEN 101 AND 999999),
    password_hash       TEXT NOT NULL,    -- Argon2id, as a PHC string
    display_name        TEXT NOT NULL,
    phone               TEXT,             -- the only number the agent may sign in with; NULL: any
    vdn_id              INTEGER NOT NULL, -- the virtual call centre the agent belongs to
    agent_type          INTEGER NOT NULL CHECK (agent_type IN (4, 11)), -- 4 audio, 11 video
    inspector           INTEGER NOT NULL CHECK (inspector IN (0, 1)),   -- may query every conference
    locked              INTEGER NOT NULL CHECK (locked IN (0, 1)),      -- may not sign in
    password_expires_at INTEGER,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    name           TEXT NOT NULL PRIMARY KEY,
    sha256         BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32), -- of the key's text
    scopes         TEXT NOT NULL,    -- JSON array: mediacontrol, verba
    networks       TEXT NOT NULL,    -- JSON array of addresses and networks it may be used from; []: any
    requires_token INTEGER NOT NULL CHECK (requires_token IN (0, 1)), -- calls need a token of a user as well
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    revoked_at     INTEGER
) STRICT;

CREATE TABLE voicemail_messages (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- shown as vm-ID, never used twice
    mailbox     TEXT NOT NULL REFERENCES users (name) ON UPDATE CASCADE ON DELETE RESTRICT,
    kind        TEXT NOT NULL CHECK (kind IN ('voicemail', 'fax')),
    sender      TEXT NOT NULL,    -- number or address of whoever left it
    subject     TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL CHECK (duration_ms >= 0), -- 0 for a fax
    read        INTEGER NOT NULL CHECK (read IN (0, 1)),
    file        TEXT NOT NULL,    -- path below the audio root
    file_name   TEXT NOT NULL,    -- name shown to clients
    mime_type   TEXT NOT NULL
) STRICT;

CREATE INDEX voicemail_by_mailbox ON voicemail_messages (mailbox, kind, received_at);

CREATE TABLE recordings (
    id               TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36), -- GUID, the ccdr_id
    state            TEXT NOT NULL CHECK (state IN ('ongoing', 'finished', 'discarded')),
    started_at       INTEGER NOT NULL,
    ended_at         INTEGER,      -- NULL while ongoing
    end_reason       TEXT CHECK (end_reason IN ('completed', 'failed', 'interrupted')),
    caller           TEXT NOT NULL,    -- as signalled
    caller_number    TEXT NOT NULL,    -- as compared: no spaces, hyphens, brackets, sip: and @host
    caller_name      TEXT,
    caller_ip        TEXT,
    called           TEXT NOT NULL,
    called_number    TEXT NOT NULL,
    called_name      TEXT,
    called_ip        TEXT,
    native_id        TEXT,
    platform_call_id TEXT,
    meeting_id       TEXT,
    location         TEXT,
    recorded_party   TEXT,
    audio_codec_id   INTEGER,
    direction_id     INTEGER,
    cause_id         INTEGER,
    signaling_id     INTEGER,
    conference       INTEGER NOT NULL CHECK (conference IN (0, 1)),
    secondary        INTEGER NOT NULL CHECK (secondary IN (0, 1)),
    on_demand        INTEGER NOT NULL CHECK (on_demand IN (0, 1)),     -- thrown away at its end unless kept
    kept             INTEGER NOT NULL CHECK (kept IN (0, 1)),
    manual           INTEGER NOT NULL CHECK (manual IN (0, 1)),        -- marked as recorded by hand
    do_not_delete    INTEGER NOT NULL CHECK (do_not_delete IN (0, 1)),
    delete_at_end    INTEGER NOT NULL CHECK (delete_at_end IN (0, 1)),
    caller_muted     INTEGER NOT NULL CHECK (caller_muted IN (0, 1)),  -- now, or at its end
    called_muted     INTEGER NOT NULL CHECK (called_muted IN (0, 1)),
    CHECK ((state = 'ongoing') = (ended_at IS NULL)),
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) STRICT;

CREATE INDEX recordings_by_start ON recordings (started_at);

CREATE INDEX recordings_by_state ON recordings (state, started_at);

CREATE INDEX recordings_by_caller ON recordings (caller_number, state, ended_at);

CREATE INDEX recordings_by_called ON recordings (called_number, state, ended_at);

CREATE INDEX recordings_by_native_id ON recordings (native_id) WHERE native_id IS NOT NULL;

CREATE INDEX recordings_by_platform_call_id ON recordings (platform_call_id) WHERE platform_call_id IS NOT NULL;

CREATE INDEX recordings_by_meeting_id ON recordings (meeting_id) WHERE meeting_id IS NOT NULL;

CREATE TABLE recording_files (
    recording TEXT NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    part      INTEGER NOT NULL CHECK (part >= 0), -- order of the files of one recording
    path      TEXT NOT NULL,                      -- below the recording root
    PRIMARY KEY (recording, part)
) STRICT;

CREATE TABLE recording_mutes (
    id        INTEGER NOT NULL PRIMARY KEY,
    recording TEXT NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    party     TEXT NOT NULL CHECK (party IN ('caller', 'called')),
    began_at  INTEGER NOT NULL,
    ended_at  INTEGER,          -- NULL while it lasts
    by        TEXT NOT NULL     -- name of the API key that asked for it
) STRICT;

CREATE UNIQUE INDEX recording_mutes_open ON recording_mutes (recording, party) WHERE ended_at IS NULL;

CREATE INDEX recording_mutes_by_recording ON recording_mutes (recording, began_at);

CREATE TABLE recording_gaps (
    id        INTEGER NOT NULL PRIMARY KEY,
    recording TEXT NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    began_at  INTEGER NOT NULL,
    ended_at  INTEGER NOT NULL CHECK (ended_at >= began_at),
    reason    TEXT NOT NULL
) STRICT;

CREATE INDEX recording_gaps_by_recording ON recording_gaps (recording, began_at);
