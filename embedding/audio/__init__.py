"""From a recording to the features that Da-TACOS has. Needs the extra `audio`."""
