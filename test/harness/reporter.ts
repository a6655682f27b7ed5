/**
 * Closes a run with the line `N passed, N failed, N skipped`: tests, not files. What failed without being a test (a file
 * that could not be loaded, an error that nobody caught) counts as failed, so that the line never looks better than
 * the exit code. It is written as the process ends, after everything else. What passed only when it was run once more is
 * named: it is a fault of the test, or of what it tests.
 */
import { writeSync } from 'node:fs'
import type { Reporter, SerializedError, TestModule } from 'vitest/node'
import { redisMissing } from './redis.ts'

export class ClosingLine implements Reporter {
  #line = '0 passed, 1 failed, 0 skipped'

  onInit(): void {
    process.once('exit', () => writeSync(1, `${this.#line}\n`))
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const count = { passed: 0, failed: unhandled.length, skipped: 0, pending: 0 }
    for (const module of modules) {
      const tests = [...module.children.allTests()]
      for (const test of tests) {
        count[test.result().state] += 1
        if (test.diagnostic()?.flaky === true) process.stdout.write(`Passed only at the second try: ${module.relativeModuleId} > ${test.fullName}\n`)
      }
      // A failed hook or import leaves the tests behind it unrun.
      if (module.state() === 'failed' && !tests.some((test) => test.result().state === 'failed')) count.failed += 1
    }
    if (modules.length === 0) count.failed += 1
    if (redisMissing) {
      process.stdout.write('\nNo Redis: the tests that need one were skipped. Install redis-server or set REDIS_SERVER.\n')
    }
    // A test that never ran proves nothing: with the run over, pending is failed.
    this.#line = `${count.passed} passed, ${count.failed + count.pending} failed, ${count.skipped} skipped`
  }
}
