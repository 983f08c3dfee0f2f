/* A Vulkan driver that loses its device while a file exists: the driver that SYNCLINE_TEST_DRIVER
 * names, behind a gate. While SYNCLINE_TEST_LOST exists, whatever is submitted or waited for
 * returns VK_ERROR_DEVICE_LOST, as after a reset of the GPU; while SYNCLINE_TEST_GONE exists, no
 * device can be made either, as when it is off the bus.
 *
 *     cc -shared -fPIC -o liblosing.so losing_driver.c -ldl
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICE_LOST (-4)
#define INITIALIZATION_FAILED (-3)

typedef void (*Function)(void);
typedef Function (*Finder)(void *, const char *);

static void *driver(void) {
    static void *loaded;
    if (!loaded) loaded = dlopen(getenv("SYNCLINE_TEST_DRIVER"), RTLD_NOW | RTLD_LOCAL);
    return loaded;
}

static int there(const char *variable) {
    const char *path = getenv(variable);
    return path && access(path, F_OK) == 0;
}

static int is_lost(void) { return there("SYNCLINE_TEST_LOST") || there("SYNCLINE_TEST_GONE"); }

static int (*real_submit)(void *, uint32_t, const void *, uint64_t);
static int (*real_submit2)(void *, uint32_t, const void *, uint64_t);
static int (*real_wait)(void *, uint32_t, const uint64_t *, uint32_t, uint64_t);
static int (*real_status)(void *, uint64_t);
static int (*real_create)(void *, const void *, const void *, void **);

static int submit(void *queue, uint32_t count, const void *what, uint64_t fence) {
    return is_lost() ? DEVICE_LOST : real_submit(queue, count, what, fence);
}
static int submit2(void *queue, uint32_t count, const void *what, uint64_t fence) {
    return is_lost() ? DEVICE_LOST : real_submit2(queue, count, what, fence);
}
static int wait_for(void *device, uint32_t count, const uint64_t *fences, uint32_t all, uint64_t ns) {
    return is_lost() ? DEVICE_LOST : real_wait(device, count, fences, all, ns);
}
static int status(void *device, uint64_t fence) {
    return is_lost() ? DEVICE_LOST : real_status(device, fence);
}
static int create(void *physical, const void *info, const void *allocator, void **device) {
    return there("SYNCLINE_TEST_GONE") ? INITIALIZATION_FAILED
                                       : real_create(physical, info, allocator, device);
}

static Finder real_of_instance, real_of_device;

static Function gated(const char *name, Function found) {
    if (!found) return found;
#define GATE(known, keep, gate) \
    if (!strcmp(name, known)) { \
        *(Function *)&keep = found; \
        return (Function)gate; \
    }
    GATE("vkQueueSubmit", real_submit, submit)
    GATE("vkQueueSubmit2", real_submit2, submit2)
    GATE("vkWaitForFences", real_wait, wait_for)
    GATE("vkGetFenceStatus", real_status, status)
    GATE("vkCreateDevice", real_create, create)
    return found;
}

static Function of_device(void *device, const char *name) {
    return gated(name, real_of_device(device, name));
}

Function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
    if (!real_of_instance)
        real_of_instance = (Finder)dlsym(driver(), "vk_icdGetInstanceProcAddr");
    Function found = real_of_instance(instance, name);
    if (found && !strcmp(name, "vkGetDeviceProcAddr")) {
        real_of_device = (Finder)found;
        return (Function)of_device;
    }
    return gated(name, found);
}

Function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
    Finder find = (Finder)dlsym(driver(), "vk_icdGetPhysicalDeviceProcAddr");
    return find ? gated(name, find(instance, name)) : NULL;
}

int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    int (*negotiate)(uint32_t *) =
        (int (*)(uint32_t *))dlsym(driver(), "vk_icdNegotiateLoaderICDInterfaceVersion");
    return negotiate ? negotiate(version) : 0;
}
