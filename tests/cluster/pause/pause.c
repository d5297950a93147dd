/*
 * The first process of a container: it reaps orphans and ends when it is told to. That is all there is to the pause
 * image. Other images give it a program to run first: when that fails, it fails too; else it goes on waiting, so that
 * a pod that has done what it is for stays up.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal_number) {
    (void)signal_number;
    _exit(0);
}

static void reap(int signal_number) {
    (void)signal_number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static int run(char *const command[]) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        execv(command[0], command);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0) {
        return 126;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char *argv[]) {
    struct sigaction on_end = {.sa_handler = end}, on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    if (sigaction(SIGTERM, &on_end, NULL) || sigaction(SIGINT, &on_end, NULL)) {
        return EXIT_FAILURE;
    }
    if (argc > 1) {
        int failure = run(argv + 1);
        if (failure) {
            return failure;
        }
    }
    if (sigaction(SIGCHLD, &on_child, NULL)) {
        return EXIT_FAILURE;
    }
    for (;;) {
        pause();
    }
}
