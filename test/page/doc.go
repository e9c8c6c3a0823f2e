// Package page drives a real browser over the dashboard of a real mirror in front of test
// hubs: every view with data, without, and with errors; every action; at two widths and in
// both themes.
//
// It needs Chromium, Node and the packages of tools/page (make page-deps). What the browser
// does is in tools/page/run.mjs; this package is the world around it.
package page
