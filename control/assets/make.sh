#!/bin/sh
# Makes the demo's speech clips: espeak-ng (1.51) and sox (14.4.2). Run it in an empty directory.
set -eu

# speak NAME VOICE WORDS_PER_MINUTE PITCH TEXT: speech at 8 kHz, silence at both ends cut, peaks limited,
# -20 dBov RMS, still 16-bit linear.
speak() {
    espeak-ng -v "$2" -s "$3" -p "$4" -w "$1.raw.wav" "$5"
    sox -D "$1.raw.wav" "$1.limited.wav" rate 8000 norm -3 \
        silence 1 0.01 0.5% reverse silence 1 0.01 0.5% reverse \
        compand 0.001,0.05 3:-70,-70,-26,-18,0,-12 0 -90 0.002
    rms=$(sox "$1.limited.wav" -n stat 2>&1 | awk '/RMS.*amplitude/ { print 20 * log($3) / log(10) }')
    sox -D "$1.limited.wav" "$1.linear.wav" gain "$(awk "BEGIN { print -20 - ($rms) }")"
}

speak alice en-gb+f3 170 60 "Good morning, Alice here. My train is late, please start."
speak bob en-us+m3 165 35 "Hello everyone, this is Bob. I have sent you the figures."
speak carol en-gb-scotland+f5 175 75 "And Carol. Could somebody check whether the second line is still open?"
speak announcement en-gb-x-rp+m7 160 45 "This conference is being recorded. If you do not agree to that, please hang up now, thank you."

# A quiet chord lies under the announcement, so that there is no moment in which it can't be heard.
sox -n -r 8000 -c 1 -b 16 chord.wav synth 12 sine 349.23 sine 440 sine 523.25 sine 659.26 remix - norm -31 tremolo 0.7 40
length=$(soxi -D announcement.linear.wav)
sox -D -m -v 0.9 announcement.linear.wav -v 1 chord.wav announcement.mixed.wav trim 0 "$length"

for name in alice bob carol; do sox -D "$name.linear.wav" -e mu-law "$name.wav"; done
sox -D announcement.mixed.wav -e mu-law announcement.wav
rm -f ./*.raw.wav ./*.limited.wav ./*.linear.wav ./*.mixed.wav chord.wav
