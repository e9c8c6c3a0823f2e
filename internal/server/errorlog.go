package server

import (
	"bytes"
	"log"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// errorLog returns the logger that net/http wants, writing to ours.
func errorLog(to *zap.Logger) *log.Logger {
	return log.New(&lineWriter{to}, "", 0)
}

// lineWriter makes an event of each line: at level debug if any client can cause it, at
// level error if it is a panic.
type lineWriter struct{ log *zap.Logger }

func (w *lineWriter) Write(line []byte) (int, error) {
	level := zapcore.WarnLevel
	switch {
	case bytes.HasPrefix(line, []byte("http: panic")):
		level = zapcore.ErrorLevel
	case bytes.HasPrefix(line, []byte("http: TLS handshake error")), bytes.HasPrefix(line, []byte("http2:")):
		level = zapcore.DebugLevel
	}
	w.log.Log(level, "http server", zap.ByteString("text", bytes.TrimSpace(line)))
	return len(line), nil
}
