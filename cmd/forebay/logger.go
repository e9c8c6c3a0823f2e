package main

import (
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"forebay/config"
)

// logs are where a program writes what happens.
type logs struct {
	log    *zap.Logger
	level  zap.AtomicLevel // of log
	access *zap.Logger     // takes a line for each request; nil for none
}

// newLogs returns the logs that the configuration asks for, writing to w, without one for requests.
func newLogs(c config.Log, w io.Writer) logs {
	l := logs{level: zap.NewAtomicLevelAt(levelOf(c))}
	l.log = newLogger(c, w, l.level)
	return l
}

func levelOf(c config.Log) zapcore.Level {
	level, err := zapcore.ParseLevel(string(c.Level))
	if err != nil {
		panic("logger: config let through the level " + string(c.Level))
	}
	return level
}

func newLogger(c config.Log, w io.Writer, level zapcore.LevelEnabler) *zap.Logger {
	encoder := logShape()
	encode := zapcore.NewJSONEncoder(encoder)
	if logsForPeople(c.Format, w) {
		encoder.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoder.EncodeLevel = zapcore.CapitalLevelEncoder
		encode = zapcore.NewConsoleEncoder(encoder)
	}
	return zap.New(zapcore.NewCore(encode, zapcore.Lock(zapcore.AddSync(w)), level))
}

// logShape is what a line looks like to programs.
func logShape() zapcore.EncoderConfig {
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

// newAccessLogger returns the logger of lines about requests, which are gathered where
// programs read them and written at once where people do. flush writes what is gathered
// and must be called at the end.
func newAccessLogger(c config.Log, w io.Writer) (log *zap.Logger, flush func() error) {
	if logsForPeople(c.Format, w) {
		return newLogger(c, w, zap.InfoLevel).Named("access"), func() error { return nil }
	}
	gathered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(w), FlushInterval: accessEvery}
	c.Format = config.LogJSON
	return newLogger(c, gathered, zap.InfoLevel).Named("access"), gathered.Stop
}

// logsForPeople reports whether w gets lines for people rather than JSON.
func logsForPeople(f config.LogFormat, w io.Writer) bool {
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
