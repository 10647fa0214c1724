#!/usr/bin/env python3
"""An IVR on Metreos.MediaControl: answers a call, takes a digit that interrupts its prompt, records a message, connects
the caller with an agent, and lets a supervisor coach the agent. The three telephones are played too, over RTP, and what
each of them hears is checked.

    ringbridge serve --mediacontrol 127.0.0.1:9530 &
    examples/ivr.py

Needs Python 3.9 and nothing else. Exit code 0: everything was heard as it should be.
"""

import argparse
import json
import math
import queue
import random
import socket
import struct
import sys
import threading
import time
import urllib.request
import uuid

RATE = 8000
FRAME = 160  # samples in a packet of 20 ms


class MediaControl:
    """Calls actions, and hands out their events one by one."""

    def __init__(self, url, token=None):
        self.url, self.token = url.rstrip("/"), token
        self.guid = str(uuid.uuid4())
        self.events = queue.Queue()
        self.last = 0
        threading.Thread(target=self._poll, daemon=True).start()

    def call(self, action, **params):
        """Carries out an action; its results. Anything but Success is the end of the script."""
        branch, results = self.attempt(action, **params)
        if branch != "Success":
            sys.exit(f"{action} {params}: {branch} {results}")
        return results

    def attempt(self, action, **params):
        body = {"action": f"Metreos.MediaControl.{action}", "routingGuid": self.guid, "params": params}
        answer = self._http("POST", f"/MediaControl/{action}", body)
        return answer["branch"], answer["results"]

    def wait(self, event, operation, seconds=20):
        """The parameters of an event of one operation. Those of others that come before are put back."""
        until, others = time.monotonic() + seconds, []
        try:
            while True:
                got = self.events.get(timeout=max(0.01, until - time.monotonic()))
                if got["params"].get("OperationId") == operation:
                    name = got["event"].rsplit(".", 1)[-1]
                    if name != event:
                        sys.exit(f"{event} was expected, {got} came")
                    return got["params"]
                others.append(got)
        except queue.Empty:
            sys.exit(f"no {event} of operation {operation} within {seconds} s")
        finally:
            for other in others:
                self.events.put(other)

    def _poll(self):
        while True:
            path = f"/MediaControl/events?routingGuid={self.guid}&after={self.last}&wait=10000"
            for event in self._http("GET", path)["events"]:
                self.last = event["sequence"]
                self.events.put(event)

    def _http(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Telephone:
    """Sends a packet each 20 ms: silence, a tone, or a digit; and keeps what it hears."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.port = self.socket.getsockname()[1]
        self.hz = 0
        self.heard = []
        self.lock = threading.Lock()
        self.digits = queue.Queue()
        self.spoken, self.speaks = 0, threading.Condition()
        self.remote = None
        self.running = True
        for loop in (self._send, self._receive):
            threading.Thread(target=loop, daemon=True).start()

    def connect(self, ip, port):
        self.remote = (ip, int(port))

    def press(self, digit):
        """Presses a digit for 100 ms, as telephone-events (RFC 4733)."""
        self.digits.put("0123456789*#ABCD".index(digit))

    def says(self, hz, seconds):
        """Says a tone for so long, counted in packets, then nothing more."""
        with self.speaks:
            self.spoken, self.hz = 0, hz
            if not self.speaks.wait_for(lambda: self.spoken * FRAME >= seconds * RATE, timeout=10 * seconds):
                sys.exit(f"{self.name} could not send for {seconds} s")
            self.hz = 0

    def listens(self, hz, seconds=10, share=0.2):
        """Waits until it hears that tone."""
        return self._until(lambda samples: level(samples, hz) > share, f"{self.name} does not hear {hz} Hz", seconds)

    def is_deaf_to(self, hz, seconds=10):
        """Waits until half a second without that tone has been heard."""
        return self._until(lambda samples: level(samples, hz) < 0.02, f"{self.name} still hears {hz} Hz", seconds)

    def _until(self, holds, complaint, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self.lock:
                self.heard.clear()
            time.sleep(0.5)
            with self.lock:
                samples = self.heard[:]
            # What was not sent was silence.
            if holds(samples + [0] * (RATE // 2 - len(samples))):
                return
        sys.exit(complaint)

    def _packet(self, payload_type, sequence, timestamp, payload, marker=False):
        flags = payload_type | (0x80 if marker else 0)
        return struct.pack("!BBHII", 0x80, flags, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, self.ssrc) + payload

    def _send(self):
        self.ssrc = random.getrandbits(32)
        sequence, timestamp, phase = random.getrandbits(16), random.getrandbits(32), 0
        due, pressed = time.monotonic(), None
        while self.running:
            due += 0.02
            time.sleep(max(0, due - time.monotonic()))
            if self.remote is None:
                continue
            if pressed is None and not self.digits.empty():
                pressed = (self.digits.get(), timestamp, 0)
            speaks = False
            if pressed is not None:
                code, start, count = pressed
                ends = count >= 4
                duration = min(count + 1, 5) * FRAME
                payload = struct.pack("!BBH", code, (0x80 if ends else 0) | 10, duration)
                packet = self._packet(101, sequence, start, payload, marker=count == 0)
                # The last packet goes out three times.
                pressed = None if count >= 6 else (code, start, count + 1)
            else:
                step = 2 * math.pi * self.hz / RATE
                samples = (8000 * math.sin(phase + n * step) if step else 0 for n in range(FRAME))
                payload = bytes(ulaw(int(sample)) for sample in samples)
                speaks = step != 0
                phase = (phase + FRAME * step) % (2 * math.pi)
                packet = self._packet(0, sequence, timestamp, payload)
            self.socket.sendto(packet, self.remote)
            with self.speaks:
                self.spoken += speaks
                self.speaks.notify()
            sequence, timestamp = sequence + 1, timestamp + FRAME

    def _receive(self):
        while self.running:
            try:
                packet, source = self.socket.recvfrom(2048)
            except socket.timeout:
                continue
            if source == self.remote and packet[1] & 0x7F == 0:
                with self.lock:
                    self.heard.extend(LINEAR[byte] for byte in packet[12:])
                    del self.heard[: -4 * RATE]


def ulaw(sample):
    """G.711 µ-law of a 16-bit sample."""
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32635) + 0x84
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | (magnitude >> (exponent + 3)) & 0x0F) & 0xFF


def linear(byte):
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84 << (byte >> 4 & 7)) - 0x84
    return -magnitude if byte & 0x80 else magnitude


LINEAR = [linear(byte) for byte in range(256)]


def level(samples, hz):
    """Amplitude of a tone among samples (Goertzel), 1 being what a telephone here sends."""
    coefficient = 2 * math.cos(2 * math.pi * hz / RATE)
    a = b = 0.0
    for sample in samples:
        a, b = sample + coefficient * a - b, a
    power = a * a + b * b - coefficient * a * b
    return 2 * math.sqrt(max(power, 0)) / len(samples) / 8000


def answer(control, telephone):
    """Answers a call from that telephone: a place to send to first, then where to send."""
    reserved = control.call("ReserveConnection", MediaRxCodec="G711u")
    telephone.connect(reserved["MediaRxIP"], reserved["MediaRxPort"])
    connection = reserved["ConnectionId"]
    control.call("CreateConnection", ConnectionId=connection, MediaTxIP="127.0.0.1", MediaTxPort=telephone.port)
    return connection


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:9530", help="where the MediaControl listener is")
    parser.add_argument("--token", help="its bearer token, if it wants one")
    arguments = parser.parse_args()
    control = MediaControl(arguments.url, arguments.token)
    caller, agent, supervisor = (Telephone(name) for name in ("caller", "agent", "supervisor"))

    print("A call comes in.")
    call = answer(control, caller)

    print("A menu is announced; the caller presses 2 before it ends.")
    menu = control.call("PlayTone", ConnectionId=call, Frequency1=500, Duration=8000, TermCondDigitList="123")
    caller.listens(500)
    caller.press("2")
    ended = control.wait("PlayTone_Complete", menu["OperationId"])
    check("the digit ends the announcement", ended["TerminationCondition"] == "digitlist", ended)
    caller.is_deaf_to(500)
    choice = control.call("GatherDigits", ConnectionId=call, TermCondMaxDigits=1, CommandTimeout=5000)
    gathered = control.wait("GatherDigits_Complete", choice["OperationId"])
    check("the digit is there to be gathered", gathered["Digits"] == "2", gathered)

    print("The caller leaves a message, and hears it again.")
    name = f"ivr-{control.guid[:8]}.wav"
    recording = control.call("Record", ConnectionId=call, Filename=name, TermCondSilence=800, TermCondMaxTime=15000)
    caller.says(440, seconds=1.5)
    recorded = control.wait("Record_Complete", recording["OperationId"])
    check("silence ends the recording", recorded["TerminationCondition"] == "silence", recorded)
    replay = control.call("Play", ConnectionId=call, Prompt1=recorded["Filename"])
    caller.listens(440)
    control.call("StopMediaOperation", ConnectionId=call, OperationId=replay["OperationId"])
    stopped = control.wait("Play_Complete", replay["OperationId"])
    check("the replay was stopped", stopped["TerminationCondition"] == "userstop", stopped)

    print("An agent is put through.")
    agent_leg = answer(control, agent)
    conference = control.call("CreateConference", ConnectionId=call, Hairpin="true")["ConferenceId"]
    control.call("JoinConference", ConferenceId=conference, ConnectionId=agent_leg)
    caller.hz, agent.hz = 440, 620
    caller.listens(620)
    agent.listens(440)

    print("A supervisor coaches the agent; the caller does not hear it.")
    supervisor_leg = answer(control, supervisor)
    control.call("JoinConference", ConferenceId=conference, ConnectionId=supervisor_leg, Coach="true")
    control.call("SetConfereeAttribute", ConferenceId=conference, ConnectionId=agent_leg, Pupil="true")
    supervisor.hz = 980
    agent.listens(980)
    supervisor.listens(440)
    caller.is_deaf_to(980)
    caller.listens(620)

    print("An announcement to all is stopped.")
    notice = control.call("PlayTone", ConferenceId=conference, Frequency1=1500, Duration=10000)
    caller.listens(1500)
    # The connection that the announcement returned names it; no OperationId is needed.
    control.call("StopMediaOperation", ConnectionId=notice["ConnectionId"])
    stopped = control.wait("PlayTone_Complete", notice["OperationId"])
    check("the announcement was stopped", stopped["TerminationCondition"] == "userstop", stopped)
    for telephone in (caller, agent, supervisor):
        telephone.is_deaf_to(1500)

    print("The call is over.")
    control.call("DeleteConnection", ConferenceId=conference)
    for leg in (call, agent_leg, supervisor_leg):
        branch, results = control.attempt("DeleteConnection", ConnectionId=leg)
        check("nothing is left of the conference", (branch, results["ResultCode"]) == ("Failure", "23"), results)
    print("Everything was heard as it should be.")


def check(what, holds, got):
    if not holds:
        sys.exit(f"not so: {what}; got {got}")


if __name__ == "__main__":
    main()
