import ArgumentParser
@main struct MemdumpCommand: ParsableCommand {}
