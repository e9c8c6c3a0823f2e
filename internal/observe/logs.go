// Package observe is what a process tells of its work, as its configuration says: lines of logs, for
// people or for programs, and spans for a collector.
//
// It promises that nothing waits for who takes them: lines about requests are gathered, and spans that
// nobody takes are dropped.
package observe

import (
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"forebay/config"
)

// Logs are where a program writes what happens.
type Logs struct {
	Log    *zap.Logger
	Level  zap.AtomicLevel // of Log
	Access *zap.Logger     // takes a line for each request; nil for none
}

// NewLogs returns the logs that the configuration asks for, writing to w, without one for requests.
func NewLogs(c config.Log, w io.Writer) Logs {
	l := Logs{Level: zap.NewAtomicLevelAt(LevelOf(c))}
	l.Log = newLogger(c, w, l.Level)
	return l
}

// LevelOf is the level that a configuration names.
func LevelOf(c config.Log) zapcore.Level {
	level, err := zapcore.ParseLevel(string(c.Level))
	if err != nil {
		panic("observe: config let through the level " + string(c.Level))
	}
	return level
}

func newLogger(c config.Log, w io.Writer, level zapcore.LevelEnabler) *zap.Logger {
	encoder := LogShape()
	encode := zapcore.NewJSONEncoder(encoder)
	if ForPeople(c.Format, w) {
		encoder.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoder.EncodeLevel = zapcore.CapitalLevelEncoder
		encode = zapcore.NewConsoleEncoder(encoder)
	}
	return zap.New(zapcore.NewCore(encode, zapcore.Lock(zapcore.AddSync(w)), level))
}

// LogShape is what a line looks like to programs.
func LogShape() zapcore.EncoderConfig {
	return zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", NameKey: "part", MessageKey: "msg",
		EncodeTime:     zapcore.RFC3339NanoTimeEncoder,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder,
		EncodeName:     zapcore.FullNameEncoder,
	}
}

// accessEvery is how late a line about a request may be. A write for each would cost a
// tenth of what a cached manifest costs.
const accessEvery = time.Second

// NewAccessLog returns the logger of lines about requests, which are gathered where
// programs read them and written at once where people do. flush writes what is gathered
// and must be called at the end.
func NewAccessLog(c config.Log, w io.Writer) (log *zap.Logger, flush func() error) {
	if ForPeople(c.Format, w) {
		return newLogger(c, w, zap.InfoLevel).Named("access"), func() error { return nil }
	}
	gathered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(w), FlushInterval: accessEvery}
	c.Format = config.LogJSON
	return newLogger(c, gathered, zap.InfoLevel).Named("access"), gathered.Stop
}

// ForPeople reports whether w gets lines for people rather than JSON.
func ForPeople(f config.LogFormat, w io.Writer) bool {
	switch f {
	case config.LogConsole:
		return true
	case config.LogJSON:
		return false
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
