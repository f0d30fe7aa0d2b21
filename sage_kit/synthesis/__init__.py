"""The map, and new examples near anchors in it."""
