/** A vitest reporter that lists every skipped test with its reason, which the JSON report lacks. */
export default class SkippedReporter {
  onTestRunEnd(modules) {
    for (const module of modules)
      for (const test of module.children.allTests('skipped')) {
        const reason = test.result().note ?? 'no reason given'
        console.log(`skipped: ${module.relativeModuleId} > ${test.fullName}: ${reason}`)
      }
  }
}
