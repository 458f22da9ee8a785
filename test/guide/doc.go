// Package guide tests the guide, which are the README.md files of this repository: it runs the
// commands that they show, and compares the outputs.
package guide
